import { HEADER_BYTES } from '../../src/frame/limits.ts';
import type { SessionEvent } from '../../src/session/events.ts';
import type { IncomingMessage, Lane } from '../../src/session/lane.ts';
import { type PathOpener, type Role, Session } from '../../src/session/session.ts';
import { type LinkOptions, SimulatedNetwork, type SimulatedPair } from '../support/network.ts';

export const WINDOW_BYTES: number = 64 * 1024;

const LINK: LinkOptions = {
  delayMs: 5,
  jitterMs: 0,
  bytesPerSecond: 10_000_000,
  bufferBytes: 16 * 1024,
};

/** What two sessions on a simulated network are made of. */
export interface PairOptions {
  readonly paths?: number;
  readonly seed?: number;
  readonly windowBytes?: number;
  readonly resumeTimeoutMs?: number;
  /** Round trip that the handshake of every path has measured; milliseconds. */
  readonly rttMs?: number;
  /** What every path is like, unless told otherwise. */
  readonly link?: Partial<LinkOptions>;
  readonly opener?: PathOpener;
}

/** Two sessions on a simulated network. */
export class SessionPair {
  readonly network: SimulatedNetwork;
  readonly client: Session;
  readonly server: Session;
  readonly links: SimulatedPair[] = [];
  readonly #options: PairOptions;

  constructor(options: PairOptions = {}) {
    const { paths = 1, seed = 1 } = options;
    this.#options = options;
    this.network = new SimulatedNetwork(seed);
    this.client = this.#make('client');
    this.server = this.#make('server');
    for (let count = 0; count < paths; count++) this.addPath();
  }

  addPath(options: Partial<LinkOptions> = {}): SimulatedPair {
    const link = { ...LINK, ...this.#options.link, ...options };
    return this.take(this.network.connect(String(this.links.length), link));
  }

  /** Lets a link join as a path. */
  take(pair: SimulatedPair): SimulatedPair {
    this.links.push(pair);
    const { rttMs } = this.#options;
    const options = rttMs === undefined ? {} : { rttMs };
    this.client.adopt(pair.client, options);
    this.server.adopt(pair.server, options);
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
    const { windowBytes = WINDOW_BYTES, resumeTimeoutMs = 0, opener } = this.#options;
    const id = new Uint8Array(16).fill(0xab);
    const common = { windowBytes, peerWindowBytes: windowBytes, resumeTimeoutMs, clock };
    const ofClient = role === 'client' && opener !== undefined ? { opener } : {};
    return new Session({ ...common, ...ofClient, id, role });
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

/** Keeps every event of a session, as it comes. */
export function keepEvents(session: Session): SessionEvent[] {
  const events: SessionEvent[] = [];
  const keep = async (): Promise<void> => {
    for await (const event of session.events()) events.push(event);
  };
  keep();
  return events;
}

/** Waits until readers of events have seen those that happened. */
export function allTold(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** What a transfer is made of. */
export interface TransferOptions {
  readonly messages: number;
  readonly messageBytes: number;
  /** Bytes that wait in the lane, at most one message more. */
  readonly queuedBytesMax: number;
}

/**
 * Messages one way over a lane that is kept full, and what came of them. Each buffer is used again
 * as soon as it is given back: one that is given back too early arrives with wrong bytes.
 */
export class Transfer {
  readonly wrong: string[] = [];
  readonly acked = new Set<number>();
  readonly delivered = new Set<number>();
  /** Most payload bytes that have waited, or were on their way, at one time. */
  heldBytesMax = 0;
  readonly #options: TransferOptions;
  readonly #free: Uint8Array[] = [];
  #sent = 0;
  #isStopped = false;

  constructor(options: TransferOptions) {
    this.#options = options;
  }

  /** Whether all has arrived: every message, or those that were sent before it was stopped. */
  get isDone(): boolean {
    const messages = this.#isStopped ? this.#sent : this.#options.messages;
    return this.acked.size === messages && this.delivered.size === messages;
  }

  /** Messages that were handed to the lane. */
  get sent(): number {
    return this.#sent;
  }

  send(lane: Lane): this {
    const more = (): void => {
      const { messages, queuedBytesMax } = this.#options;
      while (!this.#isStopped && this.#sent < messages && lane.queuedBytes < queuedBytesMax) {
        this.#sendNext(lane);
      }
      this.heldBytesMax = Math.max(this.heldBytesMax, lane.queuedBytes + lane.unackedBytes);
    };
    lane.onDrain = more;
    more();
    return this;
  }

  /** Sends nothing further. */
  stop(): void {
    this.#isStopped = true;
  }

  receive(lane: Lane): void {
    lane.onMessage = (message) => {
      this.#check(message);
      message.release();
    };
  }

  #sendNext(lane: Lane): void {
    const sequence = this.#sent++;
    const buffer = this.#free.pop() ?? new Uint8Array(HEADER_BYTES + this.#options.messageBytes);
    this.#fill(buffer.subarray(HEADER_BYTES), sequence);
    const onAcked = (): void => {
      if (this.acked.has(sequence)) this.wrong.push(`${sequence} was given back twice`);
      this.acked.add(sequence);
      this.#free.push(buffer.fill(0xee));
    };
    const range = { start: HEADER_BYTES, end: buffer.length };
    const given = lane.send({ buffer, ...range, isOrdered: false, onAcked });
    if (given !== sequence) this.wrong.push(`${sequence} was numbered ${given}`);
  }

  #fill(payload: Uint8Array, sequence: number): void {
    payload.fill(sequence % 251);
    new DataView(payload.buffer, payload.byteOffset).setUint32(0, sequence);
  }

  #check({ sequence, payload }: IncomingMessage): void {
    if (this.delivered.has(sequence)) this.wrong.push(`${sequence} came twice`);
    this.delivered.add(sequence);
    const expected = new Uint8Array(this.#options.messageBytes);
    this.#fill(expected, sequence);
    if (Buffer.compare(payload, expected) !== 0) this.wrong.push(`${sequence} has other bytes`);
  }
}
