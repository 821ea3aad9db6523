import { HEADER_BYTES } from '../../src/frame/limits.ts';
import type { IncomingMessage, Lane } from '../../src/session/lane.ts';
import { type Role, Session } from '../../src/session/session.ts';
import { type LinkOptions, SimulatedNetwork, type SimulatedPair } from '../support/network.ts';

export const WINDOW_BYTES: number = 64 * 1024;

const LINK: LinkOptions = {
  delayMs: 5,
  jitterMs: 0,
  bytesPerSecond: 10_000_000,
  bufferBytes: 16 * 1024,
};

/** Two sessions on a simulated network. */
export class SessionPair {
  readonly network: SimulatedNetwork;
  readonly client: Session;
  readonly server: Session;
  readonly links: SimulatedPair[] = [];

  constructor({ paths = 1, seed = 1 }: { paths?: number; seed?: number } = {}) {
    this.network = new SimulatedNetwork(seed);
    this.client = this.#make('client');
    this.server = this.#make('server');
    for (let count = 0; count < paths; count++) this.addPath();
  }

  addPath(options: Partial<LinkOptions> = {}): SimulatedPair {
    const pair = this.network.connect(String(this.links.length), { ...LINK, ...options });
    this.links.push(pair);
    this.client.adopt(pair.client);
    this.server.adopt(pair.server);
    return pair;
  }

  /** Lets simulated time pass until `isDone`. @returns Whether that came to be. */
  until(isDone: () => boolean, withinMs = 60_000): Promise<boolean> {
    return this.network.run({ isDone, limitMs: this.network.nowMs + withinMs });
  }

  /** Lets simulated time pass. */
  async pass(ms: number): Promise<void> {
    const endMs = this.network.nowMs + ms;
    let isOver = false;
    this.network.at(endMs, () => {
      isOver = true;
    });
    await this.until(() => isOver, ms + 1);
  }

  /** Lets time pass until the promise settles; throws what it rejects with. */
  async settled<T>(promise: Promise<T>): Promise<T> {
    let isSettled = false;
    const note = (): void => {
      isSettled = true;
    };
    promise.then(note, note);
    await this.until(() => isSettled);
    // The last event may have been the one that settles it, some promises later.
    if (!isSettled) await new Promise((resolve) => setImmediate(resolve));
    if (!isSettled) throw new Error('Simulated time passed, and a promise did not settle');
    return promise;
  }

  #make(role: Role): Session {
    const { clock } = this.network;
    const id = new Uint8Array(16).fill(0xab);
    const common = {
      windowBytes: WINDOW_BYTES,
      peerWindowBytes: WINDOW_BYTES,
      resumeTimeoutMs: 0,
      clock,
    };
    return new Session({ ...common, id, role });
  }
}

/** Sends `bytes` bytes of one value. */
export function sendFilled(
  lane: Lane,
  bytes: number,
  parts: { value?: number; isOrdered?: boolean; isLast?: boolean; onAcked?: () => void } = {},
): number {
  const { value = 0, isOrdered = true, ...rest } = parts;
  const buffer = new Uint8Array(HEADER_BYTES + bytes).fill(value);
  return lane.send({ buffer, start: HEADER_BYTES, end: buffer.length, isOrdered, ...rest });
}

/** Takes every message of a lane, and keeps it. */
export function collect(lane: Lane): IncomingMessage[] {
  const messages: IncomingMessage[] = [];
  lane.onMessage = (message) => messages.push(message);
  return messages;
}
