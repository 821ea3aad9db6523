import type { Redis } from 'ioredis';
import { type Clock, systemClock } from '../clock.ts';
import { StagingError } from '../errors.ts';
import { formatBytes } from '../units.ts';
import type { IntermediaryAddress } from './address.ts';
import type { Client } from './client.ts';
import { slotTag } from './cluster-slot.ts';
import {
  CONNECTIONS,
  CONNECTIONS_MAX,
  DEPTH_MAX,
  DEPTH_PER_MS,
  EXTENT_BYTES_MAX,
  KEYS_TOGETHER,
  MEMORY_RESERVE_FRACTION,
  TTL_MS,
} from './limits.ts';
import { PushRate } from './push-rate.ts';
import { BusyRate } from './rate.ts';
import { stagingErrorOf } from './redis-error.ts';

export interface IntermediaryOptions {
  /** Connections that carry extents, 1 to 64. @default 8 */
  readonly connections?: number;
  /** How long keys live without being renewed, milliseconds. @default one hour */
  readonly ttlMs?: number;
  readonly clock?: Clock;
}

/** What an intermediary says of itself. */
export interface IntermediaryFacts {
  /** Changes when Redis is started anew. */
  readonly runId: string;
  readonly usedBytes: number;
  /** What may still be put there. */
  readonly freeBytes: number;
  /** Whether it writes what it holds to files: sealed, but longer there than its time to live. */
  readonly isPersistent: boolean;
}

/** Where an extent may be on its way: a connection, as often as it may carry one. */
type Slot = Client;

/**
 * A Redis that holds extents: several connections for them, one for everything else.
 *
 * Each request fails on its own; connections connect themselves anew. Nothing is repeated here:
 * whoever asks decides.
 */
export class Intermediary implements AsyncDisposable {
  readonly address: IntermediaryAddress;
  readonly ttlMs: number;
  readonly #control: Client;
  readonly #clients: readonly Client[];
  readonly #clock: Clock;
  readonly #idle: Slot[] = [];
  readonly #waiting: ((slot: Slot) => void)[] = [];
  readonly #rate = new BusyRate();
  readonly #limit: PushRate;
  #inFlightBytes = 0;
  #freeBytes = Number.POSITIVE_INFINITY;
  readonly slots: number;
  /** What every key ends with, so that all of them are in the slot of a cluster's node. */
  readonly #suffix: string;

  private constructor(
    address: IntermediaryAddress,
    [control, ...clients]: readonly [Client, ...Client[]],
    { depth, ttlMs, clock }: { depth: number; ttlMs: number; clock: Clock },
  ) {
    this.address = address;
    this.ttlMs = ttlMs;
    this.#suffix = address.slot === undefined ? '' : slotTag(address.slot);
    this.#control = control;
    this.#clients = clients;
    this.#clock = clock;
    // One large value at a time on each connection while the round trip is short: what lies
    // behind another in Redis's buffer is copied once more.
    for (let at = 0; at < depth; at++) this.#idle.push(...clients);
    this.slots = this.#idle.length;
    this.#limit = new PushRate(clock, address.maxBytesPerSecond);
  }

  /**
   * Connects to an intermediary.
   *
   * Promise: if it throws, no connection is left open.
   *
   * @throws {StagingError} ERR_STAGING_CONNECT, ERR_STAGING_AUTH.
   * @throws {RangeError} If the connections are not 1 to 64, or it is a cluster as a whole.
   */
  static async open(
    address: IntermediaryAddress,
    { connections = CONNECTIONS, ttlMs = TTL_MS, clock = systemClock }: IntermediaryOptions = {},
  ): Promise<Intermediary> {
    if (!Number.isInteger(connections) || connections < 1 || connections > CONNECTIONS_MAX) {
      throw new RangeError(`Cannot open intermediary: connections must be 1 to ${CONNECTIONS_MAX}`);
    }
    if (address.at.kind === 'cluster') {
      throw new RangeError('Cannot open intermediary: a cluster is opened node by node');
    }
    // Only who stages loads ioredis.
    const { connectClient } = await import('./client.ts');
    const control = await connectClient(address);
    const clients: Client[] = [];
    try {
      const opening = Array.from({ length: connections }, async () => {
        clients.push(await connectClient(address));
      });
      const failed = (await Promise.allSettled(opening)).find(isRejected);
      if (failed !== undefined) throw failed.reason;
      const rttMs = await roundTripMs(control.redis, clock);
      const depth = Math.min(DEPTH_MAX, Math.max(1, Math.ceil(rttMs * DEPTH_PER_MS)));
      return new Intermediary(address, [control, ...clients], { depth, ttlMs, clock });
    } catch (cause) {
      for (const { close } of [control, ...clients]) close();
      throw stagingErrorOf(cause, address.text);
    }
  }

  get name(): string {
    return this.address.text;
  }

  get inFlightBytes(): number {
    return this.#inFlightBytes;
  }

  /** Whether a `put` or `get` would begin at once, but for its rate. */
  get hasSlot(): boolean {
    return this.#idle.length > 0;
  }

  /** Bytes per second as measured; 0 as long as nothing is known. */
  get bytesPerSecond(): number {
    return Math.min(this.#rate.bytesPerSecond, this.#limit.bytesPerSecond);
  }

  /** What may still be put there, as far as it is known. */
  get freeBytes(): number {
    return this.#freeBytes;
  }

  /** Sets the most bytes a second to and from here, from now on; no limit if undefined. */
  setLimit(bytesPerSecond: number | undefined): void {
    this.#limit.set(bytesPerSecond);
  }

  /**
   * Makes sure that it can be relied on to hold `neededBytes` more: it evicts nothing, can be
   * written, and has the memory.
   *
   * @param probeKey A key that is put there and removed, to see whether it may be.
   * @throws {StagingError} ERR_STAGING_POLICY, ERR_STAGING_READ_ONLY, ERR_STAGING_FULL,
   *   ERR_STAGING_BUSY, ERR_STAGING_AUTH, ERR_STAGING_REPLY.
   */
  async check(neededBytes: number, probeKey: string): Promise<IntermediaryFacts> {
    const info = await this.#info();
    const policy = info.get('maxmemory_policy');
    if (info.get('loading') === '1') this.#refuse('ERR_STAGING_BUSY', 'it still loads its files');
    if (policy !== 'noeviction') {
      this.#refuse(
        'ERR_STAGING_POLICY',
        `its maxmemory-policy is ${policy ?? 'unknown'}, which may throw pages away: ` +
          'CONFIG SET maxmemory-policy noeviction',
      );
    }
    if (info.get('role') !== 'master') {
      this.#refuse('ERR_STAGING_READ_ONLY', `it is a replica of ${info.get('master_host')}`);
    }
    const facts = this.#factsOf(info);
    if (facts.freeBytes < neededBytes * (1 + MEMORY_RESERVE_FRACTION)) {
      this.#refuse(
        'ERR_STAGING_FULL',
        `it has ${formatBytes(facts.freeBytes)} free of ${formatBytes(neededBytes)} needed: ` +
          'raise maxmemory, or add an intermediary',
      );
    }
    const probe = this.#full(probeKey);
    await this.#ask((redis) => redis.set(probe, '1', 'PX', this.ttlMs));
    await this.#ask((redis) => redis.unlink(probe));
    return facts;
  }

  /** What it says of itself now. @throws {StagingError} ERR_STAGING_… */
  async facts(): Promise<IntermediaryFacts> {
    return this.#factsOf(await this.#info());
  }

  /**
   * Puts a value there. On return it is there, for the time to live.
   *
   * @throws {StagingError} ERR_STAGING_… If it may not be.
   */
  async put(key: string, value: Uint8Array): Promise<void> {
    const reply = await this.#carry(value.length, async (client) => ({
      reply: await client.setLarge(this.#full(key), { value, ttlMs: this.ttlMs }),
      bytes: value.length,
    }));
    if (reply !== 'OK') this.#refuse('ERR_STAGING_REPLY', `it answered "${reply}" to SET`);
    this.#freeBytes -= value.length;
  }

  /**
   * Gets a value.
   *
   * @param options.bytes How long it is at most. @default EXTENT_BYTES_MAX
   * @param options.isUrgent Whether it goes ahead of everything else, whatever the limit.
   * @returns Undefined if there is none.
   * @throws {StagingError} ERR_EXTENT_LENGTH If it is longer; ERR_STAGING_…
   */
  async get(
    key: string,
    {
      bytes = EXTENT_BYTES_MAX,
      isUrgent = false,
    }: { readonly bytes?: number; readonly isUrgent?: boolean } = {},
  ): Promise<Uint8Array | undefined> {
    // A range: what somebody else put there must not fill this process's memory.
    const ask = async (redis: Redis) => {
      const reply = await redis.getrangeBuffer(this.#full(key), 0, bytes);
      return { reply, bytes: reply.length };
    };
    const value = isUrgent
      ? await this.#ask(async (redis) => (await ask(redis)).reply)
      : await this.#carry(bytes, ({ redis }) => ask(redis));
    if (value.length > bytes) {
      throw new StagingError(
        'ERR_EXTENT_LENGTH',
        `Cannot use ${key} of ${this.name}: it must have at most ${bytes} bytes`,
        { intermediary: this.name },
      );
    }
    return value.length === 0 ? undefined : value;
  }

  /**
   * Removes keys.
   *
   * @returns How many of them were there.
   * @throws {StagingError} ERR_STAGING_…
   */
  async remove(keys: readonly string[]): Promise<number> {
    let removed = 0;
    for (let at = 0; at < keys.length; at += KEYS_TOGETHER) {
      const some = keys.slice(at, at + KEYS_TOGETHER).map((key) => this.#full(key));
      removed += await this.#ask((redis) => redis.unlink(...some));
    }
    this.#freeBytes += removed * EXTENT_BYTES_MAX;
    return removed;
  }

  /**
   * Gives keys their full time to live again.
   *
   * @returns Which of them are not there.
   * @throws {StagingError} ERR_STAGING_…
   */
  async renew(keys: readonly string[]): Promise<string[]> {
    const missing: string[] = [];
    for (let at = 0; at < keys.length; at += KEYS_TOGETHER) {
      const some = keys.slice(at, at + KEYS_TOGETHER);
      const replies = await this.#ask((redis) => {
        const pipeline = redis.pipeline();
        for (const key of some) pipeline.pexpire(this.#full(key), this.ttlMs);
        return pipeline.exec();
      });
      for (const [index, [cause, reply]] of (replies ?? []).entries()) {
        if (cause !== null) throw stagingErrorOf(cause, this.name);
        if (reply !== 1) missing.push(some[index]!);
      }
    }
    return missing;
  }

  /**
   * Lists the keys that begin with `prefix` as Redis has them, some perhaps twice. `remove` takes
   * them as they are.
   *
   * @throws {StagingError} ERR_STAGING_…
   */
  async *list(prefix: string): AsyncGenerator<string[], void, undefined> {
    const pattern = `${prefix.replace(/[\\*?[\]]/g, '\\$&')}*`;
    let cursor = '0';
    do {
      const from = cursor;
      const [next, keys] = await this.#ask((redis) =>
        redis.scan(from, 'MATCH', pattern, 'COUNT', KEYS_TOGETHER),
      );
      if (keys.length > 0) yield keys;
      cursor = next;
    } while (cursor !== '0');
  }

  [Symbol.asyncDispose](): Promise<void> {
    for (const { close } of [this.#control, ...this.#clients]) close();
    return Promise.resolve();
  }

  /** Runs what carries an extent, when its turn has come. */
  async #carry<Reply>(
    bytes: number,
    run: (client: Client) => Promise<{ reply: Reply; bytes: number }>,
  ): Promise<Reply> {
    const slot = this.#idle.pop() ?? (await new Promise<Slot>((take) => this.#waiting.push(take)));
    this.#inFlightBytes += bytes;
    let carried = 0;
    try {
      await this.#limit.pass(bytes);
      this.#rate.begin(this.#clock.now());
      try {
        const { reply, bytes: found } = await run(slot);
        carried = found;
        return reply;
      } finally {
        this.#rate.end(carried, this.#clock.now());
      }
    } catch (cause) {
      const error = stagingErrorOf(cause, this.name);
      if (error.code === 'ERR_STAGING_FULL') this.#freeBytes = 0;
      throw error;
    } finally {
      this.#inFlightBytes -= bytes;
      const next = this.#waiting.shift();
      if (next !== undefined) next(slot);
      else this.#idle.push(slot);
    }
  }

  /** A key as Redis has it. */
  #full(key: string): string {
    return key.endsWith('}') ? key : key + this.#suffix;
  }

  async #ask<Reply>(run: (redis: Redis) => Promise<Reply>): Promise<Reply> {
    try {
      return await run(this.#control.redis);
    } catch (cause) {
      throw stagingErrorOf(cause, this.name);
    }
  }

  async #info(): Promise<Map<string, string>> {
    const text = await this.#ask((redis) => redis.info());
    const fields = text.split('\r\n').filter((line) => /^\w+:/.test(line));
    return new Map(
      fields.map((line) => [line.split(':', 1)[0]!, line.slice(line.indexOf(':') + 1)]),
    );
  }

  #factsOf(info: ReadonlyMap<string, string>): IntermediaryFacts {
    const number = (field: string): number => Number(info.get(field) ?? 0);
    const usedBytes = number('used_memory');
    const limitBytes = number('maxmemory') || number('total_system_memory');
    this.#freeBytes = Math.max(0, limitBytes - usedBytes);
    return {
      runId: info.get('run_id') ?? '',
      usedBytes,
      freeBytes: this.#freeBytes,
      isPersistent: info.get('aof_enabled') === '1' || number('rdb_saves') > 0,
    };
  }

  #refuse(code: string, why: string): never {
    throw new StagingError(code, `Cannot use intermediary ${this.name}: ${why}`, {
      intermediary: this.name,
    });
  }
}

/** The shortest of a few round trips, milliseconds. */
async function roundTripMs(redis: Redis, clock: Clock): Promise<number> {
  let least = Number.POSITIVE_INFINITY;
  for (let time = 0; time < 4; time++) {
    const begin = clock.now();
    await redis.ping();
    least = Math.min(least, clock.now() - begin);
  }
  return least;
}

function isRejected(settled: PromiseSettledResult<void>): settled is PromiseRejectedResult {
  return settled.status === 'rejected';
}
