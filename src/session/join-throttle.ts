import { JOIN_FAULTS_MAX, JOIN_FAULTS_MS, JOIN_RECORDS_MAX } from './limits.ts';

/** Who tries to join what: a network (see `networkOf`), and a session's name. */
export interface JoinAttempt {
  readonly network: string;
  readonly session: string;
}

/**
 * Counts joins that went wrong, and tells which further ones are not worth looking at.
 *
 * Refused is a pair of network and session, and only one that has done something wrong itself:
 * whoever guesses at a session from elsewhere does not keep its owner out. What is remembered is
 * bounded; the oldest is forgotten first.
 */
export class JoinThrottle {
  readonly #byNetwork = new Map<string, Faults>();
  readonly #bySession = new Map<string, Faults>();
  /** Until when a pair is refused, milliseconds. */
  readonly #refused = new Map<string, number>();

  /** How much is remembered: at most three times `JOIN_RECORDS_MAX`. */
  get size(): number {
    return this.#byNetwork.size + this.#bySession.size + this.#refused.size;
  }

  /** Whether a join is refused without looking at it. */
  isRefused(attempt: JoinAttempt, nowMs: number): boolean {
    const untilMs = this.#refused.get(pairOf(attempt));
    return untilMs !== undefined && nowMs < untilMs;
  }

  /** Notes a join with a wrong proof. */
  noteWrongProof(attempt: JoinAttempt, nowMs: number): void {
    const ofNetwork = count(this.#byNetwork, attempt.network, nowMs);
    const ofSession = count(this.#bySession, attempt.session, nowMs);
    if (Math.max(ofNetwork, ofSession) < JOIN_FAULTS_MAX) return;
    remember(this.#refused, pairOf(attempt), nowMs + JOIN_FAULTS_MS);
  }

  /** Notes a join of a session that there is not. */
  noteUnknown({ network }: JoinAttempt, nowMs: number): void {
    count(this.#byNetwork, network, nowMs);
  }
}

interface Faults {
  count: number;
  readonly endsAtMs: number;
}

function pairOf({ network, session }: JoinAttempt): string {
  return `${session} ${network}`;
}

/** Counts one more, from 0 again after `JOIN_FAULTS_MS`. @returns How many there are. */
function count(faults: Map<string, Faults>, key: string, nowMs: number): number {
  const known = faults.get(key);
  if (known !== undefined && nowMs < known.endsAtMs) return ++known.count;
  remember(faults, key, { count: 1, endsAtMs: nowMs + JOIN_FAULTS_MS });
  return 1;
}

/** Sets an entry, as the youngest one. */
function remember<T>(map: Map<string, T>, key: string, value: T): void {
  map.delete(key);
  map.set(key, value);
  if (map.size <= JOIN_RECORDS_MAX) return;
  const [oldest] = map.keys();
  map.delete(oldest!);
}
