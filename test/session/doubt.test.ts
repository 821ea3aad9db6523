import { describe, expect, test } from 'vitest';
import { readU64 } from '../../src/frame/bytes.ts';
import { FrameType } from '../../src/frame/header.ts';
import {
  DOUBT_MS_MIN,
  DOUBT_ROUND_TRIPS,
  SILENCE_ALONE_MS_MIN,
  SILENCE_MS_MIN,
  TICK_MS,
} from '../../src/path/limits.ts';
import type { SessionEvent } from '../../src/session/events.ts';
import type { SimulatedPair } from '../support/network.ts';
import { allTold, collect, keepEvents, SessionPair, sendFilled, Transfer } from './support.ts';

const MESSAGE_BYTES = 32 * 1024;
const WINDOW_BYTES = 16 << 20;
const BYTES_PER_SECOND = 10_000_000;

/** Beside the time-out itself: ticks count from one to the next, and what goes again takes time. */
const SLACK_TICKS = 4;

interface Setting {
  readonly pair: SessionPair;
  readonly transfer: Transfer;
  readonly events: SessionEvent[];
  /** When each sequence arrived over each link. */
  readonly arrivedAtMs: readonly Map<number, number>[];
  /** Sequences that were given to each link, in order. */
  readonly carried: readonly (readonly number[])[];
}

/** A transfer at full speed. */
async function begin({
  paths = 2,
  delayMs = 5,
  windowBytes = WINDOW_BYTES,
} = {}): Promise<Setting> {
  const link = { delayMs, bytesPerSecond: BYTES_PER_SECOND, bufferBytes: 64 * 1024 };
  const pair = new SessionPair({ paths, windowBytes, rttMs: 2 * delayMs, link });
  const events = keepEvents(pair.client);
  const arrivedAtMs = pair.links.map(() => new Map<number, number>());
  const carried = pair.links.map(({ client, server }, index) => {
    const sequences: number[] = [];
    client.tamper = (frame) => {
      if (frame[0] === FrameType.Data) sequences.push(readU64(frame, 8));
      return frame;
    };
    server.onDataFrame = ({ sequence }) => {
      arrivedAtMs[index]!.set(sequence, pair.network.nowMs);
    };
    return sequences;
  });
  const options = { messages: 1e6, messageBytes: MESSAGE_BYTES, queuedBytesMax: 1 << 20 };
  const transfer = new Transfer(options).send(pair.client.openLane());
  transfer.receive(await pair.settled(pair.server.acceptLane()));
  await pair.pass(2000);
  return { pair, transfer, events, arrivedAtMs, carried };
}

/** Lets everything arrive that was sent, and looks whether it came once and whole. */
async function finish({ pair, transfer }: Setting): Promise<void> {
  transfer.stop();
  expect(await pair.until(() => transfer.isDone)).toBe(true);
  expect(transfer.wrong).toEqual([]);
}

const typesOf = (events: readonly SessionEvent[]): string[] => events.map(({ type }) => type);

const stateOf = (pair: SessionPair, id: number): string | undefined =>
  pair.client.pathReports().find((report) => report.id === id)?.state;

describe('Session with a path that falls silent', () => {
  const SILENCES: readonly (readonly [string, (link: SimulatedPair) => void])[] = [
    ['in both directions', (link) => link.goSilent()],
    ['for acks only', (link) => link.goSilentFrom('server')],
  ];

  test.each([
    [...SILENCES[0]!, 5, 0],
    [...SILENCES[0]!, 5, 1],
    [...SILENCES[0]!, 100, 0],
    [...SILENCES[1]!, 5, 0],
    [...SILENCES[1]!, 100, 1],
  ] as const)(
    '%s: what it carried comes over the other soon',
    async (_what, silence, delayMs, index) => {
      const setting = await begin({ delayMs });
      const { pair, arrivedAtMs, carried, events } = setting;
      const { rttMs } = pair.client.pathReports()[index]!;
      silence(pair.links[index]!);
      const fromMs = pair.network.nowMs;
      const missing = carried[index]!.filter((sequence) => !arrivedAtMs[index]!.has(sequence));
      expect(missing.length).toBeGreaterThan(0);
      await pair.pass(SILENCE_MS_MIN - DOUBT_MS_MIN);
      const other = arrivedAtMs[1 - index]!;
      const last = Math.max(...missing.map((sequence) => other.get(sequence) ?? Infinity));
      // They are given to the other path then, which has its own queue and brings them at its rate.
      const doubtMs = Math.max(DOUBT_ROUND_TRIPS * rttMs, DOUBT_MS_MIN);
      const bringMs = rttMs + (missing.length * MESSAGE_BYTES * 1000) / BYTES_PER_SECOND;
      expect(last - fromMs).toBeGreaterThan(doubtMs - TICK_MS);
      expect(last - fromMs).toBeLessThan(doubtMs + bringMs + SLACK_TICKS * TICK_MS);
      expect(typesOf(events).filter((type) => type === 'pathDoubted').length).toBe(1);
      await finish(setting);
    },
  );

  test.each(SILENCES)('%s: it is doubted, and then lost', async (_what, silence) => {
    const setting = await begin();
    const { pair, events } = setting;
    silence(pair.links[1]!);
    const fromMs = pair.network.nowMs;
    expect(await pair.until(() => stateOf(pair, 1) === 'lost')).toBe(true);
    const lostMs = pair.network.nowMs - fromMs;
    expect(lostMs).toBeGreaterThan(SILENCE_MS_MIN - TICK_MS);
    expect(lostMs).toBeLessThan(SILENCE_MS_MIN + SLACK_TICKS * TICK_MS);
    await finish(setting);
    expect(events.slice(2)).toMatchObject([
      { type: 'pathDoubted', id: 1 },
      { type: 'pathLost', id: 1, code: 'ERR_PATH_LOST' },
    ]);
    // Its frames were on their way again long before.
    expect(setting.carried[0]!.length).toBeGreaterThan(setting.carried[1]!.length);
  });

  test('gives nothing further to it while it is doubted', async () => {
    const pair = new SessionPair({ paths: 0, windowBytes: WINDOW_BYTES });
    pair.addPath({ delayMs: 40 });
    // The nearer one: little as there is to send, all of it goes there.
    const near = pair.addPath({ delayMs: 1 });
    const events = keepEvents(pair.client);
    const lane = pair.client.openLane();
    let sent = 0;
    const send = (): void => {
      sendFilled(lane, 1000);
      sent++;
      pair.network.after(20, send);
    };
    send();
    const accepted = await pair.settled(pair.server.acceptLane());
    const messages = collect(accepted);
    await pair.pass(2000);
    expect(near.client.sentDataFrames).toBeGreaterThan(0.9 * sent);
    near.goSilent();
    expect(await pair.until(() => typesOf(events).includes('pathDoubted'))).toBe(true);
    const before = near.client.sentDataFrames;
    await pair.pass(SILENCE_MS_MIN / 2);
    expect(near.client.sentDataFrames).toBe(before);
    expect(messages.length).toBeGreaterThan(sent - 5);
    expect(stateOf(pair, 1)).toBe('open');
  });

  test.each([
    [...SILENCES[0]!, 0.9],
    // The receiver hears the path now and then: some credit is told over it, and once more later.
    [...SILENCES[1]!, 0.5],
  ] as const)(
    '%s: goes on at the speed of the other, credit being told over that',
    async (_what, silence, share) => {
      // A window that is used up in a few milliseconds.
      const setting = await begin({ windowBytes: 256 * 1024 });
      const { pair, transfer } = setting;
      for (const index of [0, 1]) {
        silence(pair.links[index]!);
        await pair.pass(2 * DOUBT_MS_MIN);
        const before = transfer.delivered.size;
        const spanMs = 800;
        expect(stateOf(pair, index)).toBe('open');
        await pair.pass(spanMs);
        expect(stateOf(pair, index)).toBe('open');
        const bytes = (transfer.delivered.size - before) * MESSAGE_BYTES;
        expect((bytes * 1000) / spanMs).toBeGreaterThan(share * BYTES_PER_SECOND);
        pair.addPath();
        await pair.pass(3000);
      }
      await finish(setting);
    },
  );
});

describe('Session with a path that was silent for a while', () => {
  const SILENT_MS = 600;

  test.each([
    ['in both directions', ['client', 'server']],
    ['for acks only', ['server']],
    ['for data only', ['client']],
  ] as const)('%s: uses it again, and nothing comes twice', async (_what, ends) => {
    const setting = await begin();
    const { pair, events, carried } = setting;
    const untilMs = pair.network.nowMs + SILENT_MS;
    for (const end of ends) pair.links[1]![end].holdUntil(untilMs);
    await pair.pass(SILENT_MS);
    const before = carried[1]!.length;
    await pair.pass(1000);
    expect(stateOf(pair, 1)).toBe('open');
    // Both carry as much as they can.
    expect((carried[1]!.length - before) * MESSAGE_BYTES).toBeGreaterThan(0.8 * BYTES_PER_SECOND);
    await finish(setting);
    const types = typesOf(events);
    expect(types).not.toContain('pathLost');
    expect(types).toContain('pathDoubted');
  });

  test('many times: each frame that is late is late only once', async () => {
    const setting = await begin({ paths: 3 });
    const { pair } = setting;
    for (let round = 0; round < 20; round++) {
      pair.links[round % 3]!.stall(SILENT_MS);
      await pair.pass(SILENT_MS + 100);
    }
    await finish(setting);
    for (const { state } of pair.client.pathReports()) expect(state).toBe('open');
  });
});

describe('Session whose paths are all silent', () => {
  test.each([1, 2, 3])('doubts none of %i, and loses them after a while', async (paths) => {
    const { pair, events } = await begin({ paths });
    for (const link of pair.links) link.goSilent();
    const fromMs = pair.network.nowMs;
    await pair.pass(SILENCE_ALONE_MS_MIN - 2 * TICK_MS);
    expect(typesOf(events)).toEqual(Array(paths).fill('pathOpened'));
    const error = await pair.settled(pair.client.ended);
    expect(error).toMatchObject({ code: 'ERR_PATHS_EXHAUSTED' });
    expect(pair.network.nowMs - fromMs).toBeLessThan(SILENCE_ALONE_MS_MIN + SLACK_TICKS * TICK_MS);
    await allTold();
    expect(typesOf(events).slice(paths)).toEqual([...Array(paths).fill('pathLost'), 'closed']);
  });

  test('loses none that are silent for a little less, and goes on', async () => {
    const setting = await begin();
    const { pair, events } = setting;
    for (const link of pair.links) link.stall(SILENCE_ALONE_MS_MIN - 4 * TICK_MS);
    await pair.pass(2 * SILENCE_ALONE_MS_MIN);
    expect(typesOf(events)).not.toContain('pathLost');
    await finish(setting);
  });
});
