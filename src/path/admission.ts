import { formatIp, IPV4_BYTES, IPV6_BYTES, parseIp } from '../address.ts';
import {
  HANDSHAKES_MAX,
  KNOWN_SHARE,
  NETWORK_SHARE,
  SILENT_SHARE,
  SPEAKING_SHARE,
} from './limits.ts';

/*
 * Who stays on probation when there are too many
 *
 * A newcomer always gets in: turned away are those who hold a place and do nothing with it. Were
 * newcomers refused instead, 256 idle connections would keep everybody out for as long as they may
 * take for their handshakes.
 *
 *   1. which standing   the lowest one that has more connections than its share
 *   2. which network    the one that has most of them, if it has more than its share
 *   3. which of them    the one that came first
 *
 * So a flood of one kind turns away itself: one from a single network by 2, a silent one by 1. One
 * from many networks that all speak leaves a newcomer the time in which 256 others arrive, unless
 * it can show a key: those have a share that others cannot take.
 */

/** How far a connection has come with its handshake, the least first. */
export const Standing = {
  /** It was refused, and has to go anyway: it may still read why. */
  Leaving: 0,
  /** It has not sent a byte. */
  Silent: 1,
  /** It has begun to speak, or to pretend so. */
  Speaking: 2,
  /** It has named the key, shown a certificate or, without TLS, said Hello. */
  Known: 3,
} as const;
export type Standing = (typeof Standing)[keyof typeof Standing];

const SHARES: readonly number[] = [0, SILENT_SHARE, SPEAKING_SHARE, KNOWN_SHARE];

/** A connection on probation. All but its network is for `Admission` to change. */
export interface Candidate {
  /** Where it comes from: see `networkOf`. */
  readonly network: string;
  standing: Standing;
  /** Its place among those on probation; absent if it is none of them. */
  slot: number | undefined;
  /** How many came before it. */
  arrival: number;
}

/** The connections on probation, and who of them goes when there are too many. */
export class Admission<C extends Candidate> {
  /**
   * A place for each, used again and again: of a map that is as busy as this one under attack, what
   * it has outgrown keeps all that was in it, for much longer than that lives.
   */
  readonly #slots: (C | undefined)[] = Array(HANDSHAKES_MAX + 1).fill(undefined);
  #size = 0;
  #arrivals = 0;
  /** Of each standing: how many there are, in all and by network. */
  readonly #totals: number[] = SHARES.map(() => 0);
  readonly #counts: readonly Map<string, number>[] = SHARES.map(() => new Map());

  get size(): number {
    return this.#size;
  }

  /** Everybody on probation, in no order. */
  candidates(): C[] {
    return this.#slots.filter((candidate) => candidate !== undefined);
  }

  /** Lets a newcomer in. @returns Who has to go for it; perhaps itself. */
  enter(newcomer: C): C | undefined {
    newcomer.slot = this.#slots.indexOf(undefined);
    newcomer.arrival = this.#arrivals++;
    this.#slots[newcomer.slot] = newcomer;
    this.#size++;
    this.#count(newcomer, 1);
    if (this.#size <= HANDSHAKES_MAX) return undefined;
    const victim = this.#victim();
    this.leave(victim);
    return victim;
  }

  /** Changes the standing of a connection that is on probation; does nothing for others. */
  move(candidate: C, standing: Standing): void {
    if (candidate.slot === undefined) return;
    this.#count(candidate, -1);
    candidate.standing = standing;
    this.#count(candidate, 1);
  }

  /** Ends a probation. @returns Whether it was on probation. */
  leave(candidate: C): boolean {
    if (candidate.slot === undefined) return false;
    this.#slots[candidate.slot] = undefined;
    candidate.slot = undefined;
    this.#size--;
    this.#count(candidate, -1);
    return true;
  }

  #count({ standing, network }: Candidate, change: 1 | -1): void {
    this.#totals[standing]! += change;
    const counts = this.#counts[standing]!;
    const count = (counts.get(network) ?? 0) + change;
    if (count === 0) counts.delete(network);
    else counts.set(network, count);
  }

  #victim(): C {
    // The shares add up to the limit, so there is one that is exceeded.
    const standing = this.#totals.findIndex((total, index) => total > SHARES[index]!);
    const counts = this.#counts[standing]!;
    let victim: C | undefined;
    let most = 0;
    for (const candidate of this.#slots) {
      if (candidate?.standing !== standing) continue;
      const count = Math.max(counts.get(candidate.network)!, NETWORK_SHARE);
      const isOlder = victim === undefined || candidate.arrival < victim.arrival;
      if (count < most || (count === most && !isOlder)) continue;
      victim = candidate;
      most = count;
    }
    return victim!;
  }
}

/**
 * The network that an address stands for: an IPv4 address for itself, an IPv6 address for all of
 * its /64, because who has one of those has all of them.
 */
export function networkOf(address: string): string {
  const bytes = address.includes(':') ? parseIp(address.replace(/%.*$/, '')) : undefined;
  if (bytes === undefined) return address;
  if (bytes.length === IPV4_BYTES) return formatIp(bytes);
  return `${formatIp(bytes.fill(0, IPV6_BYTES / 2))}/64`;
}
