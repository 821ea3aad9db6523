import type { Clock } from '../../src/clock.ts';
import { PathError } from '../../src/errors.ts';
import { FrameDecoder } from '../../src/frame/decode.ts';
import { type FrameHeader, FrameType, type Stage } from '../../src/frame/header.ts';
import type { LinkHandlers, PathLink } from '../../src/path/link.ts';
import { createPrng } from './prng.ts';

/** How a link behaves, the same in both directions. */
export interface LinkOptions {
  readonly delayMs: number;
  readonly jitterMs: number;
  readonly bytesPerSecond: number;
  /** Bytes that leave the process before the link has carried them, as a socket's buffer takes. */
  readonly bufferBytes: number;
  /** Most bytes of a chunk. @default 4096 */
  readonly chunkBytes?: number;
}

interface SimulatedEvent {
  readonly atMs: number;
  readonly order: number;
  run: (() => void) | undefined;
}

/** Time-outs of a closing link, milliseconds. */
const LINGER_MS = 2000;

/**
 * Links and their clock, made of a seed. Nothing here waits: `run` jumps from event to event, and
 * two runs with one seed are the same.
 */
export class SimulatedNetwork {
  readonly random: () => number;
  readonly clock: Clock;
  readonly #events: SimulatedEvent[] = [];
  #nowMs = 0;
  #order = 0;

  constructor(seed: number) {
    this.random = createPrng(seed);
    this.clock = { now: () => this.#nowMs, after: (delayMs, run) => this.after(delayMs, run) };
  }

  get nowMs(): number {
    return this.#nowMs;
  }

  /** Calls `run` once, `delayMs` from now; returns what cancels it. */
  after(delayMs: number, run: () => void): () => void {
    return this.at(this.#nowMs + delayMs, run);
  }

  /**
   * Calls `run` once, at `atMs`; calls of the same moment come in the order they were asked for.
   */
  at(atMs: number, run: () => void): () => void {
    const event: SimulatedEvent = { atMs, order: this.#order++, run };
    this.#push(event);
    return () => {
      event.run = undefined;
    };
  }

  /** Opens a link; frames sent at one end come out at the other. */
  connect(name: string, options: LinkOptions): SimulatedPair {
    return new SimulatedPair(this, name, options);
  }

  /**
   * Runs events in the order of time, until `isDone` says so.
   *
   * @returns Whether it did, before `limitMs` of simulated time.
   */
  async run({ isDone, limitMs }: { isDone: () => boolean; limitMs: number }): Promise<boolean> {
    while (!isDone()) {
      const event = this.#pop();
      if (event === undefined || event.atMs > limitMs) return false;
      this.#nowMs = event.atMs;
      if (event.run === undefined) continue;
      event.run();
      // What the event promised happens before the next one.
      await undefined;
    }
    return true;
  }

  #push(event: SimulatedEvent): void {
    const heap = this.#events;
    let at = heap.push(event) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!isBefore(event, heap[parent]!)) break;
      heap[at] = heap[parent]!;
      at = parent;
    }
    heap[at] = event;
  }

  #pop(): SimulatedEvent | undefined {
    const heap = this.#events;
    const first = heap[0];
    const last = heap.pop();
    if (first === undefined || last === undefined || heap.length === 0) return first;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && isBefore(heap[child + 1]!, heap[child]!)) child++;
      if (!isBefore(heap[child]!, last)) break;
      heap[at] = heap[child]!;
      at = child;
    }
    heap[at] = last;
    return first;
  }
}

function isBefore(one: SimulatedEvent, other: SimulatedEvent): boolean {
  return one.atMs < other.atMs || (one.atMs === other.atMs && one.order < other.order);
}

/** A link's two ends, and what can happen to it. */
export class SimulatedPair {
  readonly client: SimulatedLink;
  readonly server: SimulatedLink;
  readonly #network: SimulatedNetwork;

  constructor(network: SimulatedNetwork, name: string, options: LinkOptions) {
    this.#network = network;
    this.client = new SimulatedLink(network, `client:${name}`, options);
    this.server = new SimulatedLink(network, `server:${name}`, options);
    this.client.peer = this.server;
    this.server.peer = this.client;
  }

  /** Loses what is on the way; each end hears of it after a while of its own. */
  cut(): void {
    this.goSilent();
    for (const end of [this.client, this.server]) {
      this.#network.after(this.#network.random() * 50, () => end.breakDown('was cut'));
    }
  }

  /** Loses what is on the way and all that follows; nobody hears of it. */
  goSilent(): void {
    this.client.isSilent = true;
    this.server.isSilent = true;
  }

  /** The same in one direction only: what `from` sends is lost. */
  goSilentFrom(from: 'client' | 'server'): void {
    this[from].isSilent = true;
  }

  /** Holds everything back for a while, in both directions; then all of it arrives. */
  stall(ms: number): void {
    for (const end of [this.client, this.server]) end.holdUntil(this.#network.nowMs + ms);
  }
}

/** One end of a simulated link. */
export class SimulatedLink implements PathLink {
  readonly local: string;
  handlers: LinkHandlers = {
    allocate: (bytes) => new Uint8Array(bytes),
    onFrame: () => {},
    onTurn: () => {},
    onWritable: () => {},
    onFault: () => {},
    onClosed: () => {},
  };
  peer!: SimulatedLink;
  /** Whether what is sent here is lost. */
  isSilent = false;
  /** Rewrites each chunk that leaves: a fault to be found. */
  tamper: ((frame: Uint8Array) => Uint8Array) | undefined;
  /**
   * Tells where the link is reset: given the number of a Data frame that is sent here, how many of
   * its bytes still arrive; undefined if all of them do, and those of the next frames.
   */
  resetIn: ((dataFrame: number) => number | undefined) | undefined;
  /** Data frames that were sent here. */
  sentDataFrames = 0;
  /** Sees every Data frame that arrives here, before its owner does. */
  onDataFrame: ((header: Readonly<FrameHeader>) => void) | undefined;
  readonly #network: SimulatedNetwork;
  readonly #options: LinkOptions;
  readonly #decoder: FrameDecoder;
  #waiting: Uint8Array[] = [];
  #waitingBytes = 0;
  #isCarrying = false;
  #wasBackedUp = false;
  #lastArrivalMs = 0;
  #receivedBytes = 0;
  #isTurnDue = false;
  #isReset = false;
  #isEnding = false;
  #isFinSent = false;
  #isClosed = false;

  constructor(network: SimulatedNetwork, local: string, options: LinkOptions) {
    this.#network = network;
    this.local = local;
    this.#options = options;
    this.#decoder = new FrameDecoder({
      allocate: (bytes) => this.handlers.allocate(bytes),
      onFrame: (header, payload) => {
        if (header.type === FrameType.Data) this.onDataFrame?.(header);
        this.handlers.onFrame(header, payload);
      },
    });
  }

  /** Lets nothing that is sent from now on arrive before `atMs`. */
  holdUntil(atMs: number): void {
    this.#lastArrivalMs = Math.max(this.#lastArrivalMs, atMs);
  }

  get remote(): string {
    return this.peer.local;
  }

  get pendingBytes(): number {
    return Math.max(0, this.#waitingBytes - this.#options.bufferBytes);
  }

  get receivedBytes(): number {
    return this.#receivedBytes;
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  get stage(): Stage {
    return this.#decoder.stage;
  }

  set stage(stage: Stage) {
    this.#decoder.stage = stage;
  }

  send(bytes: Uint8Array): void {
    if (this.#isEnding || this.#isClosed) return;
    if (this.#isReset) return;
    let frame = this.tamper?.(bytes) ?? bytes;
    if (bytes[0] === FrameType.Data) {
      const dataFrame = this.sentDataFrames++;
      const left = this.resetIn?.(dataFrame);
      this.#isReset = left !== undefined;
      if (left !== undefined) frame = frame.subarray(0, left);
    }
    if (frame.length > 0) this.#waiting.push(frame);
    this.#waitingBytes += frame.length;
    if (this.pendingBytes > 0) this.#wasBackedUp = true;
    this.#carry();
  }

  wake(): void {
    if (this.#isTurnDue) return;
    this.#isTurnDue = true;
    this.#network.after(0, () => {
      this.#isTurnDue = false;
      if (!this.#isEnding && !this.#isClosed) this.handlers.onTurn();
    });
  }

  end(): void {
    if (this.#isEnding) return;
    this.#isEnding = true;
    this.#decoder.stop();
    this.#network.after(LINGER_MS, () => this.#close(undefined));
    this.#carry();
  }

  destroy(): void {
    if (this.#isClosed) return;
    this.#isEnding = true;
    this.#decoder.stop();
    this.#waiting = [];
    this.#waitingBytes = 0;
    this.#sendFin();
    this.#network.after(0, () => this.#close(undefined));
  }

  /** Ends the link as a reset does. */
  breakDown(why: string): void {
    const error = new PathError('ERR_PATH_LOST', `${this.local} ${why}`, this.remote);
    this.#close(this.#isEnding ? undefined : error);
  }

  /** Takes the next piece of what waits; the rest follows when the link has carried it. */
  #carry(): void {
    if (this.#isCarrying || this.#isClosed) return;
    const first = this.#waiting[0];
    if (first === undefined) {
      if (this.#isEnding) this.#sendFin();
      else if (this.#isReset) this.#reset();
      return;
    }
    const { bytesPerSecond, delayMs, jitterMs, chunkBytes = 4096 } = this.#options;
    const { random } = this.#network;
    const length = Math.min(first.length, 1 + Math.floor(random() * chunkBytes));
    this.#isCarrying = true;
    this.#network.after((length * 1000) / bytesPerSecond, () => {
      this.#isCarrying = false;
      if (this.#waiting[0] !== first) return this.#carry();
      // The bytes are read as late as this: who changes them before has broken a promise.
      const chunk = first.slice(0, length);
      if (length === first.length) this.#waiting.shift();
      else this.#waiting[0] = first.subarray(length);
      this.#waitingBytes -= length;
      this.#arrive(delayMs + random() * jitterMs, () => this.peer.#onChunk(chunk));
      if (this.#wasBackedUp && this.pendingBytes === 0) {
        this.#wasBackedUp = false;
        if (!this.#isEnding) this.handlers.onWritable();
      }
      this.#carry();
    });
  }

  /** What was sent has arrived, and nothing else will. */
  #reset(): void {
    this.#arrive(this.#options.delayMs, () => {
      this.peer.breakDown('was reset');
      this.breakDown('was reset');
    });
  }

  /** Calls `run` at the other end, after what was sent before. */
  #arrive(afterMs: number, run: () => void): void {
    this.#lastArrivalMs = Math.max(this.#lastArrivalMs, this.#network.nowMs + afterMs);
    this.#network.at(this.#lastArrivalMs, () => {
      if (!this.isSilent) run();
    });
  }

  #sendFin(): void {
    if (this.#isFinSent) return;
    this.#isFinSent = true;
    this.#arrive(this.#options.delayMs, () => this.peer.#onFin());
  }

  #onChunk(chunk: Uint8Array): void {
    if (this.#isClosed) return;
    this.#receivedBytes += chunk.length;
    try {
      this.#decoder.push(chunk);
    } catch (error) {
      this.#decoder.stop();
      this.handlers.onFault(error as PathError);
    }
    if (!this.#isEnding) this.wake();
  }

  #onFin(): void {
    if (this.#isEnding) this.#close(undefined);
    else this.breakDown('was closed by the peer');
  }

  #close(error: PathError | undefined): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#isEnding = true;
    this.#sendFin();
    this.handlers.onClosed(error);
  }
}
