import { randomBytes } from 'node:crypto';
import { afterEach, describe, expect, test } from 'vitest';
import { HEADER_BYTES, PATHS_MAX } from '../../src/frame/limits.ts';
import type { Security } from '../../src/path/secure.ts';
import { connectSession } from '../../src/session/connect.ts';
import type { Lane } from '../../src/session/lane.ts';
import { listenForSessions } from '../../src/session/listener.ts';
import type { Session } from '../../src/session/session.ts';
import { waitUntil, within } from '../support/lab/processes.ts';
import { createPrng, exactRandomBytes, integerBelow } from '../support/prng.ts';
import { Relay } from './relay.ts';

const TIMEOUT_MS = 50_000;
const MESSAGES = 300;
const QUEUED_BYTES_MAX = 1 << 20;

const CLOSERS: (() => unknown)[] = [];

afterEach(async () => {
  for (const close of CLOSERS.splice(0).reverse()) await close();
});

interface Setting {
  readonly client: Session;
  readonly server: Session;
  readonly relays: readonly Relay[];
}

/** A session whose every path goes through a relay of its own. */
async function connect(pathCount: number, security: Security): Promise<Setting> {
  const common = { security, windowBytes: 1 << 20, resumeTimeoutMs: 5000 };
  const listener = await listenForSessions({ ...common, host: '127.0.0.1', port: 0 });
  CLOSERS.push(() => listener.close());
  const relays: Relay[] = [];
  for (let count = 0; count < pathCount; count++) {
    const relay = await Relay.open(listener.port);
    CLOSERS.push(() => relay.close());
    relays.push(relay);
  }
  const paths = relays.map(({ port }) => ({ host: '127.0.0.1', port }));
  const client = await connectSession({ ...common, paths, requireAllPaths: true });
  CLOSERS.push(() => client.close());
  const server = await listener.accept();
  CLOSERS.push(() => server.close());
  return { client, server, relays };
}

/** One direction of a lane: what was sent, and what came. */
class Flow {
  readonly #sent: { payload: Uint8Array; epoch: number }[] = [];
  readonly #delivered = new Set<number>();
  readonly wrong: string[] = [];
  readonly #random: () => number;
  acked = 0;

  constructor(seed: number) {
    this.#random = createPrng(seed);
  }

  get delivered(): number {
    return this.#delivered.size;
  }

  get isDone(): boolean {
    return this.acked === MESSAGES && this.delivered === MESSAGES;
  }

  send(lane: Lane): void {
    let epoch = 0;
    const more = (): void => {
      while (this.#sent.length < MESSAGES && lane.queuedBytes < QUEUED_BYTES_MAX) {
        const sequence = this.#sent.length;
        if (sequence % 16 === 0) {
          lane.beginEpoch();
          epoch = sequence;
        }
        const payload = exactRandomBytes(this.#random, integerBelow(this.#random, 100_000));
        const buffer = new Uint8Array(HEADER_BYTES + payload.length);
        buffer.set(payload, HEADER_BYTES);
        this.#sent.push({ payload, epoch });
        const onAcked = (): void => {
          this.acked++;
          buffer.fill(0xee);
        };
        const range = { start: HEADER_BYTES, end: buffer.length };
        lane.send({ buffer, ...range, isOrdered: false, onAcked });
      }
    };
    lane.onDrain = more;
    more();
  }

  receive(lane: Lane): void {
    lane.onMessage = (message) => {
      const { sequence, payload } = message;
      const sent = this.#sent[sequence];
      if (this.#delivered.has(sequence)) this.wrong.push(`${sequence} came twice`);
      if (Buffer.compare(payload, sent?.payload ?? new Uint8Array(0)) !== 0) {
        this.wrong.push(`${sequence} has other bytes`);
      }
      for (let below = (sent?.epoch ?? 0) - 1; below >= 0 && below >= sequence - 64; below--) {
        if (!this.#delivered.has(below)) this.wrong.push(`${sequence} came before ${below}`);
      }
      this.#delivered.add(sequence);
      message.release();
    };
  }
}

async function start({ client, server }: Setting): Promise<readonly [Flow, Flow]> {
  const [there, back] = [new Flow(1), new Flow(2)];
  const lane = client.openLane();
  back.receive(lane);
  there.send(lane);
  const accepted = await within(server.acceptLane(), TIMEOUT_MS, 'the lane to arrive');
  there.receive(accepted);
  back.send(accepted);
  return [there, back];
}

function lostPaths(session: Session): number {
  return session.pathReports().filter(({ state }) => state !== 'open').length;
}

const KEY: Security = { kind: 'key', key: randomBytes(32) };
const NONE: Security = { kind: 'none' };

describe('Session over real sockets', () => {
  test.each([
    [2, NONE],
    [3, KEY],
    [7, NONE],
    [PATHS_MAX, NONE],
    [PATHS_MAX, KEY],
  ])(
    'delivers all once, all paths but one being lost on the way: %i paths',
    async (count, security) => {
      const setting = await connect(count, security);
      const { client, server, relays } = setting;
      const flows = await start(setting);
      // Each loss comes at some progress of its own; the ways to lose a path take turns.
      const ways = ['reset', 'finish', 'swallow'] as const;
      for (const [index, relay] of relays.slice(1).entries()) {
        const share = (MESSAGES * (index + 1)) / (relays.length + 1);
        await waitUntil('the transfer to go on', () => flows[0].delivered >= share, {
          timeoutMs: TIMEOUT_MS,
        });
        relay.harm(ways[index % ways.length]!);
      }
      await waitUntil('both directions to be done', () => flows.every(({ isDone }) => isDone), {
        timeoutMs: TIMEOUT_MS,
      });
      await waitUntil('the losses to be noticed', () => lostPaths(client) === count - 1, {
        timeoutMs: TIMEOUT_MS,
      });
      expect(flows.map(({ wrong }) => wrong)).toEqual([[], []]);
      await within(client.close(), TIMEOUT_MS, 'the session to close');
      const ends = Promise.all([client.ended, server.ended]);
      expect(await within(ends, TIMEOUT_MS, 'both ends to end')).toEqual([undefined, undefined]);
    },
  );

  test('moves on to paths that are added while others are lost', async () => {
    const setting = await connect(1, NONE);
    const { client, relays } = setting;
    const flows = await start(setting);
    let current = relays[0]!;
    for (let round = 1; round <= 4; round++) {
      const next = await Relay.open(current.to);
      CLOSERS.push(() => next.close());
      await client.addPath({ host: '127.0.0.1', port: next.port });
      current.harm('reset');
      await waitUntil('the loss to be noticed', () => lostPaths(client) === round, {
        timeoutMs: TIMEOUT_MS,
      });
      current = next;
    }
    await waitUntil('both directions to be done', () => flows.every(({ isDone }) => isDone), {
      timeoutMs: TIMEOUT_MS,
    });
    expect(flows.map(({ wrong }) => wrong)).toEqual([[], []]);
  });

  test.each([
    ['reset', 1],
    ['finish', 2],
    ['reset', PATHS_MAX],
  ] as const)('goes on after a %s of all of %i, again and again', async (how, count) => {
    const setting = await connect(count, KEY);
    const flows = await start(setting);
    for (let round = 1; round <= 3; round++) {
      const isDue = () => flows[0].delivered > (MESSAGES * round) / 5;
      await waitUntil('some more to arrive', isDue, { timeoutMs: TIMEOUT_MS });
      for (const relay of setting.relays) relay.cut(how);
    }
    await waitUntil('both directions to be done', () => flows.every(({ isDone }) => isDone), {
      timeoutMs: TIMEOUT_MS,
    });
    expect(flows.map(({ wrong }) => wrong)).toEqual([[], []]);
    expect(lostPaths(setting.client)).toBeGreaterThanOrEqual(count);
  });

  test.each([1, 2, PATHS_MAX])(
    'ends on both sides when all of %i are gone for good',
    async (count) => {
      const setting = await connect(count, NONE);
      const { client, server, relays } = setting;
      const [there] = await start(setting);
      await waitUntil('something to arrive', () => there.delivered > 10, { timeoutMs: TIMEOUT_MS });
      for (const relay of relays) relay.harm('reset');
      for (const session of [client, server]) {
        const error = await within(session.ended, TIMEOUT_MS, 'the session to end');
        expect(error).toMatchObject({ name: 'PathError', code: 'ERR_PATHS_EXHAUSTED' });
        await expect(session.acceptLane()).rejects.toBe(error);
        expect(() => session.openLane()).toThrow(error!.message);
      }
      expect(there.wrong).toEqual([]);
    },
  );

  test('a path on which somebody writes his own bytes ends the session, and says why', async () => {
    const setting = await connect(3, NONE);
    const [there] = await start(setting);
    await waitUntil('something to arrive', () => there.delivered > 10, { timeoutMs: TIMEOUT_MS });
    setting.relays[1]!.inject(exactRandomBytes(createPrng(9), 64 * 1024));
    const error = await within(setting.server.ended, TIMEOUT_MS, 'the server to notice');
    expect(error?.code).toMatch(/^ERR_FRAME_/);
    const told = await within(setting.client.ended, TIMEOUT_MS, 'the client to be told');
    expect(told).toMatchObject({ name: 'RemoteError', code: error!.code });
  });

  test('with TLS the same costs the path only', async () => {
    const setting = await connect(3, KEY);
    const flows = await start(setting);
    await waitUntil('something to arrive', () => flows[0].delivered > 10, {
      timeoutMs: TIMEOUT_MS,
    });
    setting.relays[1]!.inject(exactRandomBytes(createPrng(9), 64 * 1024));
    await waitUntil('both directions to be done', () => flows.every(({ isDone }) => isDone), {
      timeoutMs: TIMEOUT_MS,
    });
    expect(flows.map(({ wrong }) => wrong)).toEqual([[], []]);
    expect(lostPaths(setting.server)).toBe(1);
  });
});
