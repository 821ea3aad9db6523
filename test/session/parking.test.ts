import { beforeEach, describe, expect, test } from 'vitest';
import type { PathReport } from '../../src/path/path.ts';
import { EventLog, type SessionEvent } from '../../src/session/events.ts';
import { PARKED_AFTER, PARKED_AFTER_MS, PROBE_MS } from '../../src/session/limits.ts';
import { Parking } from '../../src/session/parking.ts';
import type { LinkOptions } from '../support/network.ts';
import { keepEvents, SessionPair, Transfer } from './support.ts';

/** A path as parking sees it. */
class FakePath {
  isParked = false;
  inFlightCount = 0;
  hasRoom = true;
  readonly #id: number;

  constructor(id: number) {
    this.#id = id;
  }

  report(): PathReport {
    const figures = { sentBytes: 0, receivedBytes: 0, rttMs: 0, bytesPerSecond: 0 };
    const rest = { maxBytesPerSecond: undefined, unackedBytes: 0, isParked: this.isParked };
    return { id: this.#id, local: 'here', remote: 'there', state: 'open', ...figures, ...rest };
  }
}

describe('Parking', () => {
  let told: SessionEvent[];
  let parking: Parking;
  let path: FakePath;
  let other: FakePath;

  beforeEach(() => {
    told = [];
    const events = new EventLog();
    events.add = (event) => told.push(event);
    parking = new Parking(events);
    path = new FakePath(1);
    other = new FakePath(2);
    parking.update([path, other], 0);
  });

  function passOver(times: number): void {
    for (let left = times; left > 0; left--) parking.notePassedOver([path]);
  }

  const typesAndIds = (): unknown[] =>
    told.map((event) => [event.type, 'id' in event ? event.id : undefined]);

  test('parks a path that was passed over often enough, for long enough', () => {
    passOver(PARKED_AFTER);
    parking.update([path, other], PARKED_AFTER_MS - 1);
    expect(path.isParked).toBe(false);
    parking.update([path, other], PARKED_AFTER_MS);
    expect([path.isParked, other.isParked]).toEqual([true, false]);
    expect(typesAndIds()).toEqual([['pathParked', 1]]);
  });

  test('does not park one that was passed over less often, however long ago', () => {
    passOver(PARKED_AFTER - 1);
    parking.update([path, other], 100 * PARKED_AFTER_MS);
    expect(path.isParked).toBe(false);
    passOver(1);
    parking.update([path, other], 100 * PARKED_AFTER_MS);
    expect(path.isParked).toBe(true);
  });

  test('does not count frames for which the path had no room', () => {
    path.hasRoom = false;
    passOver(PARKED_AFTER);
    path.hasRoom = true;
    parking.update([path, other], PARKED_AFTER_MS);
    expect(path.isParked).toBe(false);
  });

  test('counts from the last frame that the path was given', () => {
    passOver(PARKED_AFTER);
    parking.noteGiven(path, 500);
    passOver(PARKED_AFTER - 1);
    parking.update([path, other], 10 * PARKED_AFTER_MS);
    expect(path.isParked).toBe(false);
    passOver(1);
    parking.update([path, other], 500 + PARKED_AFTER_MS - 1);
    expect(path.isParked).toBe(false);
    parking.update([path, other], 500 + PARKED_AFTER_MS);
    expect(path.isParked).toBe(true);
  });

  test('tells of it once, and once when the path is used again', () => {
    passOver(PARKED_AFTER);
    for (let nowMs = 0; nowMs < 3 * PROBE_MS; nowMs += 50) {
      passOver(1);
      parking.update([path, other], nowMs);
    }
    expect(typesAndIds()).toEqual([['pathParked', 1]]);
    parking.noteGiven(path, 3 * PROBE_MS);
    parking.noteGiven(path, 3 * PROBE_MS + 1);
    expect(path.isParked).toBe(false);
    expect(typesAndIds()).toEqual([
      ['pathParked', 1],
      ['pathResumed', 1],
    ]);
    parking.noteGiven(other, 3 * PROBE_MS);
    expect(told.length).toBe(2);
  });

  test('has a parked path tried every so often, and no other path', () => {
    passOver(PARKED_AFTER);
    const triedAtMs: number[] = [];
    for (let nowMs = 50; nowMs <= 4 * PROBE_MS; nowMs += 50) {
      const tried = parking.update([path, other], nowMs);
      if (tried.length > 0) triedAtMs.push(nowMs);
      expect(tried).not.toContain(other);
    }
    expect(triedAtMs).toEqual([PROBE_MS, 2 * PROBE_MS, 3 * PROBE_MS, 4 * PROBE_MS]);
  });

  test('does not try a path again that still carries what it was tried with', () => {
    passOver(PARKED_AFTER);
    parking.update([path], PARKED_AFTER_MS);
    path.inFlightCount = 1;
    expect(parking.update([path], 10 * PROBE_MS)).toEqual([]);
    path.inFlightCount = 0;
    expect(parking.update([path], 10 * PROBE_MS)).toEqual([path]);
  });

  test('forgets a path that is gone', () => {
    passOver(PARKED_AFTER);
    parking.forget(path);
    parking.update([path], PARKED_AFTER_MS);
    parking.update([path], 3 * PARKED_AFTER_MS);
    expect(path.isParked).toBe(false);
  });
});

describe('Parking in a session', () => {
  const COMMON = { delayMs: 1, jitterMs: 0, bufferBytes: 64 * 1024 };
  const FAST: LinkOptions = { ...COMMON, bytesPerSecond: 10_000_000, chunkBytes: 32 * 1024 };
  /** Its chunks are small, so that some arrive in each tick. */
  const SLOW: LinkOptions = { ...COMMON, bytesPerSecond: 10_000, chunkBytes: 512 };
  const MESSAGE_BYTES = 128 * 1024;
  const PAIR = { paths: 0, windowBytes: 8 << 20, rttMs: 2 * COMMON.delayMs };

  /** Sends over the paths of a pair. */
  async function start(
    pair: SessionPair,
    messages: number,
    messageBytes = MESSAGE_BYTES,
  ): Promise<Transfer> {
    const options = { messages, messageBytes, queuedBytesMax: 2 << 20 };
    const transfer = new Transfer(options).send(pair.client.openLane());
    transfer.receive(await pair.settled(pair.server.acceptLane()));
    return transfer;
  }

  /** Simulated time that all of it takes. */
  async function timeOf(pair: SessionPair, messages: number): Promise<number> {
    const fromMs = pair.network.nowMs;
    const transfer = await start(pair, messages);
    const isDelivered = (): boolean => transfer.delivered.size === messages;
    expect(await pair.until(isDelivered)).toBe(true);
    const tookMs = pair.network.nowMs - fromMs;
    expect(await pair.until(() => transfer.isDone)).toBe(true);
    expect(transfer.wrong).toEqual([]);
    return tookMs;
  }

  test.each([400, 4000])(
    'a path a thousand times slower makes %i messages no later, and is told to be parked',
    async (messages) => {
      const alone = new SessionPair(PAIR);
      alone.addPath(FAST);
      const aloneMs = await timeOf(alone, messages);
      for (const order of ['fast first', 'slow first']) {
        const pair = new SessionPair(PAIR);
        const links = order === 'fast first' ? [FAST, SLOW] : [SLOW, FAST];
        for (const link of links) pair.addPath(link);
        const events = keepEvents(pair.client);
        const tookMs = await timeOf(pair, messages);
        expect(tookMs / aloneMs, order).toBeLessThan(1.05);
        const slow = pair.client.pathReports()[links.indexOf(SLOW)]!;
        const parked = events.filter(({ type }) => type === 'pathParked');
        expect(parked.map((event) => 'id' in event && event.id)).toEqual([slow.id]);
        expect(slow.isParked).toBe(true);
      }
    },
  );

  test.each([16 * 1024, 128 * 1024])(
    'a slow path that becomes fast is used again soon, and told of: %i bytes a message',
    async (messageBytes) => {
      const pair = new SessionPair(PAIR);
      pair.addPath(FAST);
      const changing = { ...SLOW };
      const link = pair.take(pair.network.connect('changing', changing));
      const events = keepEvents(pair.client);
      const transfer = await start(pair, 1e6, messageBytes);
      const isParked = (): boolean => pair.client.pathReports()[1]!.isParked;
      // What it was given to learn from takes longer than it takes to find out.
      await pair.pass(20_000);
      expect(isParked()).toBe(true);
      const before = link.client.sentDataFrames;
      const resumed = (): number => events.filter(({ type }) => type === 'pathResumed').length;
      const resumedBefore = resumed();
      changing.bytesPerSecond = FAST.bytesPerSecond;
      const fromMs = pair.network.nowMs;
      const isUsed = (): boolean => link.client.sentDataFrames > before + 100;
      expect(await pair.until(isUsed)).toBe(true);
      expect(pair.network.nowMs - fromMs).toBeLessThan(2 * PROBE_MS);
      expect(isParked()).toBe(false);
      expect(resumed()).toBe(resumedBefore + 1);
      // From then on it carries its half.
      const [one, two] = pair.links.map(({ client }) => client.sentDataFrames);
      await pair.pass(5000);
      const carried = pair.links.map(({ client }) => client.sentDataFrames);
      expect((carried[1]! - two!) / (carried[0]! - one!)).toBeGreaterThan(0.9);
      transfer.stop();
      expect(await pair.until(() => transfer.isDone)).toBe(true);
      expect(transfer.wrong).toEqual([]);
    },
  );

  test('a slow path that carries a small message now and then is found to be fast', async () => {
    const pair = new SessionPair(PAIR);
    pair.addPath(FAST);
    const changing = { ...SLOW };
    const link = pair.take(pair.network.connect('changing', changing));
    await start(pair, 1e6, 4096);
    await pair.pass(20_000);
    changing.bytesPerSecond = FAST.bytesPerSecond;
    await pair.pass(2 * PROBE_MS);
    const [one, two] = pair.links.map(({ client }) => client.sentDataFrames);
    await pair.pass(2000);
    const [fast] = pair.links;
    const share = (link.client.sentDataFrames - two!) / (fast!.client.sentDataFrames - one!);
    expect(share).toBeGreaterThan(0.9);
  });

  test('a parked path is tried with copies, every so often and no more', async () => {
    const pair = new SessionPair(PAIR);
    pair.addPath(FAST);
    const slow = pair.addPath({ ...SLOW, bytesPerSecond: 100_000 });
    const sequences: number[] = [];
    slow.server.onDataFrame = ({ sequence }) => sequences.push(sequence);
    const transfer = await start(pair, 1e6);
    const isParked = (): boolean => pair.client.pathReports()[1]!.isParked;
    expect(await pair.until(isParked)).toBe(true);
    await pair.pass(2000);
    const before = slow.client.sentDataFrames;
    await pair.pass(4 * PROBE_MS);
    expect(isParked()).toBe(true);
    const tries = slow.client.sentDataFrames - before;
    // What it takes to carry one comes on top of the time between two.
    expect(tries).toBeGreaterThanOrEqual(3);
    expect(tries).toBeLessThanOrEqual(4);
    // Copies: the other path has brought them long before.
    for (const sequence of sequences.slice(-tries)) expect(transfer.delivered).toContain(sequence);
    expect(transfer.wrong).toEqual([]);
  });
});
