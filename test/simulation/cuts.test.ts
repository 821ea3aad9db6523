import { describe, expect, test } from 'vitest';
import { HEADER_BYTES } from '../../src/frame/limits.ts';
import { Session } from '../../src/session/session.ts';
import { SimulatedNetwork } from '../support/network.ts';

/*
 * A session of many frames over two paths, one of which is reset again and again: after a frame, or
 * after some bytes of the next frame's header. Runs that begin at different frames reset the path
 * at every frame; `scripts/cuts` does so at every byte of every header.
 */

const FRAMES = 6000;
/** Frames of the path that the session records at least. */
const RECORDED_MIN = 2000;
/** Frames between two resets of one run. */
const SPACING = 50;
const PAYLOAD_BYTES_MAX = 64;
const WINDOW_BYTES = 256 * 1024;
/** More than one path takes, so that both are used. */
const UNACKED_BYTES_MAX = 8192;
const LINK = { delayMs: 1, jitterMs: 0, bytesPerSecond: 2e6, bufferBytes: 4096 };
const LIMIT_MS = 600_000;

const IS_ALL = process.env['PAGELANE_CUTS'] === 'all';
const STARTS = Array.from({ length: SPACING }, (_, index) => index);
const OFFSETS = Array.from({ length: HEADER_BYTES + 1 }, (_, index) => index);

interface Outcome {
  readonly wrong: readonly string[];
  readonly isDone: boolean;
  /** Data frames that the path carried, and resets in them. */
  readonly carried: number;
  readonly resets: number;
}

/** The payload of a frame: any two differ. */
function payloadOf(sequence: number): Uint8Array {
  const bytes = new Uint8Array(4 + ((sequence * 7) % (PAYLOAD_BYTES_MAX - 4)));
  new DataView(bytes.buffer).setUint32(0, sequence);
  return bytes.fill(sequence % 251, 4);
}

class Run {
  readonly network: SimulatedNetwork = new SimulatedNetwork(1);
  readonly wrong: string[] = [];
  readonly client: Session;
  readonly server: Session;
  carried = 0;
  resets = 0;
  #delivered = 0;
  readonly #seen = new Uint8Array(FRAMES);
  readonly #resetAt: (frame: number) => number | undefined;
  readonly #harmed: number;
  /** Path of the test by the client's id of its connection. */
  readonly #paths = new Map<number, number>();

  constructor(harmed: number, resetAt: (frame: number) => number | undefined) {
    this.#harmed = harmed;
    this.#resetAt = resetAt;
    const { clock } = this.network;
    const bytes = { windowBytes: WINDOW_BYTES, peerWindowBytes: WINDOW_BYTES };
    const common = { ...bytes, id: new Uint8Array(16), clock, resumeTimeoutMs: LIMIT_MS };
    const opener = {
      add: () => Promise.resolve(),
      onPathWorn: () => {},
      onOffer: () => {},
      onPathGone: (id: number) => {
        const path = this.#paths.get(id)!;
        this.network.after(1, () => this.#connect(path));
      },
    };
    this.client = new Session({ ...common, role: 'client', opener });
    this.server = new Session({ ...common, role: 'server' });
    for (const path of [0, 1]) this.#connect(path);
    this.#receive();
    this.#send();
  }

  get isDone(): boolean {
    return this.#delivered === FRAMES || this.wrong.length > 0;
  }

  #connect(path: number): void {
    const pair = this.network.connect(String(path), LINK);
    if (path === this.#harmed) {
      pair.client.resetIn = () => {
        const left = this.#resetAt(this.carried++);
        if (left !== undefined) this.resets++;
        return left;
      };
    }
    this.#paths.set(this.client.adopt(pair.client)!, path);
    this.server.adopt(pair.server);
  }

  #send(): void {
    const lane = this.client.openLane();
    let sent = 0;
    const more = (): void => {
      while (sent < FRAMES && lane.queuedBytes + lane.unackedBytes < UNACKED_BYTES_MAX) {
        const payload = payloadOf(sent++);
        const buffer = new Uint8Array(HEADER_BYTES + payload.length);
        buffer.set(payload, HEADER_BYTES);
        const range = { start: HEADER_BYTES, end: buffer.length };
        lane.send({ buffer, ...range, isOrdered: false, onAcked: () => buffer.fill(0xee) });
      }
    };
    lane.onDrain = more;
    more();
  }

  async #receive(): Promise<void> {
    const lane = await this.server.acceptLane();
    lane.onMessage = (message) => {
      const { sequence, payload } = message;
      if (this.#seen[sequence] !== 0) this.wrong.push(`${sequence} came twice`);
      this.#seen[sequence] = 1;
      if (Buffer.compare(payload, payloadOf(sequence)) !== 0)
        this.wrong.push(`${sequence} differs`);
      this.#delivered++;
      message.release();
    };
  }
}

async function run(harmed: number, start: number, offset: number): Promise<Outcome> {
  // The frame after `start` others, and each fiftieth from there, gets no further than `offset`.
  const resetAt = (frame: number) => (frame % SPACING === start ? offset : undefined);
  const world = new Run(harmed, resetAt);
  const isDone = await world.network.run({ isDone: () => world.isDone, limitMs: LIMIT_MS });
  const { wrong, carried, resets } = world;
  return { isDone, wrong, carried, resets };
}

describe.each([0, 1])('Path %i of two is reset', (harmed) => {
  test.each(IS_ALL ? OFFSETS : [0])(
    'after every frame, at byte %i of the next: all arrives once and whole',
    async (offset) => {
      for (const start of STARTS) {
        const { carried, resets, ...outcome } = await run(harmed, start, offset);
        expect({ start, ...outcome }).toEqual({ start, isDone: true, wrong: [] });
        expect(carried).toBeGreaterThanOrEqual(RECORDED_MIN);
        expect(resets).toBeGreaterThanOrEqual(Math.floor(carried / SPACING) - 1);
      }
    },
    600_000,
  );

  test('at every byte of a header, and right behind it', async () => {
    for (const offset of OFFSETS) {
      const { carried, resets, ...outcome } = await run(harmed, 7, offset);
      expect({ offset, ...outcome }).toEqual({ offset, isDone: true, wrong: [] });
      expect(resets).toBeGreaterThanOrEqual(RECORDED_MIN / SPACING);
    }
  }, 120_000);
});
