import { readU32, readU64 } from '../../src/frame/bytes.ts';
import { encodeHeader, FLAG_FIN, type FrameHeader, FrameType } from '../../src/frame/header.ts';
import { PATHS_MAX } from '../../src/frame/limits.ts';
import { Session } from '../../src/session/session.ts';
import { type LinkOptions, SimulatedNetwork, type SimulatedPair } from '../support/network.ts';
import { Flow } from './flow.ts';

/** A fault that is put in on purpose: the simulation must find it. */
export type Canary = 'none' | 'epochs ignored' | 'lost frames not sent again';

const WINDOW_BYTES = 64 * 1024;

/** Harm ends so late: from then on there must be progress. Simulated milliseconds. */
const HARM_MS = 15_000;

/** Longer than any world lasts; simulated milliseconds. */
const NEVER_MS = 600_000;

/** How often each thing has happened. */
export type Counts = Record<
  | 'cut'
  | 'silent'
  | 'silentOneWay'
  | 'stalled'
  | 'added'
  | 'removed'
  | 'allLost'
  | 'capped'
  | 'doubted'
  | 'repeated'
  | 'overtaken',
  number
>;

/** What a world is made of beside its seed. */
export interface WorldOptions {
  readonly canary?: Canary;
  /** With it one path always lives, until `loseAll`. @default one that is never reached */
  readonly resumeTimeoutMs?: number;
}

/** Two sessions, their lanes full of traffic, and paths that come and go. */
export class World {
  readonly network: SimulatedNetwork;
  readonly client: Session;
  readonly server: Session;
  readonly wrong: string[] = [];
  readonly flows: Flow[] = [];
  readonly #pairs: SimulatedPair[] = [];
  readonly #alive = new Set<SimulatedPair>();
  readonly #seenByClient = new Map<number, Set<number>>();
  readonly #seenByServer = new Map<number, Set<number>>();
  readonly #canary: Canary;
  /** Whether the last path may be lost as well. */
  readonly #isStormy: boolean;
  readonly #pathsMax: number;
  #pathCount = 0;
  #isCalm = false;
  #isLost = false;
  /** What has come to pass, by name: for what the simulation covers. */
  readonly counts: Counts = {
    cut: 0,
    silent: 0,
    silentOneWay: 0,
    stalled: 0,
    added: 0,
    removed: 0,
    allLost: 0,
    capped: 0,
    doubted: 0,
    repeated: 0,
    overtaken: 0,
  };

  constructor(seed: number, options: WorldOptions = {}) {
    const { canary = 'none', resumeTimeoutMs = NEVER_MS } = options;
    this.#canary = canary;
    this.network = new SimulatedNetwork(seed);
    const { clock, random } = this.network;
    const common = { windowBytes: WINDOW_BYTES, peerWindowBytes: WINDOW_BYTES, clock };
    const id = new Uint8Array(16).fill(seed);
    this.client = new Session({ ...common, resumeTimeoutMs, id, role: 'client' });
    this.server = new Session({ ...common, resumeTimeoutMs, id, role: 'server' });
    this.#isStormy = resumeTimeoutMs === NEVER_MS && random() < 0.5;
    this.#pathsMax = random() < 0.1 ? PATHS_MAX : 6;
    const pathCount = 1 + Math.floor(random() * (random() < 0.1 ? PATHS_MAX : 4));
    for (let count = 0; count < pathCount; count++) this.addPath();
    if (random() < 0.1) this.client.maxBytesPerSecond = 20_000 + random() * 1_000_000;
    this.#openLanes();
    this.#harm();
    this.#countDoubts();
  }

  addPath(): void {
    const { random } = this.network;
    const options: LinkOptions = {
      delayMs: random() ** 2 * 100,
      jitterMs: random() ** 2 * 100,
      bytesPerSecond: 10_000 + random() ** 3 * 10_000_000,
      bufferBytes: random() * 64_000,
    };
    const pair = this.network.connect(String(this.#pathCount++), options);
    for (const end of [pair.client, pair.server]) {
      if (this.#canary === 'epochs ignored') end.tamper = withoutEpoch;
    }
    this.#watch(pair);
    this.#pairs.push(pair);
    this.#alive.add(pair);
    const maxBytesPerSecond = random() < 0.1 ? 20_000 + random() * 500_000 : undefined;
    if (maxBytesPerSecond !== undefined) this.counts.capped++;
    this.client.adopt(pair.client, { maxBytesPerSecond });
    this.server.adopt(pair.server);
  }

  #openLanes(): void {
    const laneCount = 1 + Math.floor(this.network.random() * 4);
    const accepts = { client: this.client, server: this.server };
    const flowsOf = new Map<number, Flow>();
    for (let count = 0; count < laneCount; count++) {
      const isClient = this.network.random() < 0.7;
      const lane = (isClient ? this.client : this.server).openLane();
      const there = new Flow(`lane ${lane.id} there`, this.network, this.wrong);
      const back = new Flow(`lane ${lane.id} back`, this.network, this.wrong);
      this.flows.push(there, back);
      flowsOf.set(lane.id, there);
      flowsOf.set(lane.id + 100, back);
      lane.isUrgent = this.network.random() < 0.3;
      lane.onMessage = (message) => back.receive(message);
      there.send(lane);
      const accept = async (): Promise<void> => {
        const accepted = await (isClient ? accepts.server : accepts.client).acceptLane();
        const begin = (): void => {
          accepted.onMessage = (message) => flowsOf.get(accepted.id)!.receive(message);
          flowsOf.get(accepted.id + 100)!.send(accepted);
        };
        if (this.network.random() < 0.5) begin();
        else this.network.after(this.network.random() * 500, begin);
      };
      accept().catch((error: unknown) => {
        if (!this.#isLost) this.wrong.push(String(error));
      });
    }
  }

  /** Counts frames that come twice, and frames that others have overtaken. */
  #watch({ client, server }: SimulatedPair): void {
    for (const [end, seen] of [
      [client, this.#seenByClient],
      [server, this.#seenByServer],
    ] as const) {
      end.onDataFrame = ({ lane, sequence }: Readonly<FrameHeader>) => {
        const sequences = seen.get(lane) ?? new Set<number>();
        seen.set(lane, sequences);
        if (sequences.has(sequence)) this.counts.repeated++;
        else if (sequences.has(sequence + 1)) this.counts.overtaken++;
        sequences.add(sequence);
      };
    }
  }

  /** Harms, adds and removes paths at random. In the end one path lives. */
  #harm(): void {
    const { random } = this.network;
    this.network.after(random() * 400, () => {
      if (this.#isCalm) return;
      const isOver = this.network.nowMs > HARM_MS;
      if (isOver && this.#alive.size > 0) return;
      if (this.#alive.size === 0) this.#comeBack();
      else if (random() < 0.4 && this.client.hasRoomForPath && this.#alive.size < this.#pathsMax) {
        this.counts.added++;
        this.addPath();
      }
      const pairs = [...this.#alive];
      const pair = pairs[Math.floor(random() * pairs.length)];
      if (pair !== undefined && random() < 0.6 && (pairs.length > 1 || this.#isStormy)) {
        if (random() < 0.1) this.#remove();
        else this.#lose(pair);
      }
      if (this.#alive.size === 0) this.counts.allLost++;
      this.#harm();
    });
  }

  /** The client dials again, after a while, whether or not the server knows of the loss. */
  #comeBack(): void {
    const isDue = this.network.nowMs > HARM_MS || this.network.random() < 0.2;
    if (isDue && this.client.hasRoomForPath && this.server.hasRoomForPath) this.addPath();
  }

  /** One side removes a path on purpose; which of the pairs that was does not matter. */
  #remove(): void {
    const { random } = this.network;
    const session = random() < 0.5 ? this.client : this.server;
    const open = session.pathReports().filter(({ state }) => state === 'open');
    const report = open[Math.floor(random() * open.length)];
    const pair = this.#pairs.find(({ client, server }) =>
      [client.local, server.local].includes(report?.local ?? ''),
    );
    if (report === undefined || pair === undefined || open.length < 2) return;
    if (this.#alive.delete(pair)) this.counts.removed++;
    session.removePath(report.id).catch((error: unknown) => {
      if (!(error instanceof RangeError)) this.wrong.push(`remove: ${error}`);
    });
  }

  async #countDoubts(): Promise<void> {
    for await (const { type } of this.client.events())
      if (type === 'pathDoubted') this.counts.doubted++;
  }

  #lose(pair: SimulatedPair): void {
    const { random } = this.network;
    this.#alive.delete(pair);
    if (this.#canary === 'lost frames not sent again') pretendAcked(pair);
    const dice = random();
    if (dice < 0.4) {
      this.counts.cut++;
      pair.cut();
    } else if (dice < 0.55) {
      // It may be given up meanwhile, or go on: either way another one is sure to live.
      this.counts.stalled++;
      pair.stall(random() * 3000);
    } else if (dice < 0.8) {
      this.counts.silent++;
      pair.goSilent();
    } else {
      this.counts.silentOneWay++;
      pair.goSilentFrom(random() < 0.5 ? 'client' : 'server');
    }
  }

  /** Harms nothing any more, and opens a path over which the ends can hear each other. */
  calm(): void {
    this.#isCalm = true;
    if (this.client.hasRoomForPath && this.server.hasRoomForPath) this.addPath();
  }

  /** Loses every path at once: nothing is left to go on with. */
  loseAll(): void {
    this.#isCalm = true;
    this.#isLost = true;
    for (const pair of this.#pairs) {
      if (this.network.random() < 0.5) pair.cut();
      else pair.goSilent();
    }
  }
}

/** Tells the sender that every frame of a path arrived, though they are lost with it. */
function pretendAcked(pair: SimulatedPair): void {
  for (const end of [pair.client, pair.server]) {
    const { handlers } = end;
    const carried = end.sentDataFrames;
    handlers.onFrame(
      { type: FrameType.Ack, flags: 0, lane: 0, length: 0, sequence: carried, epoch: 0 },
      new Uint8Array(0),
    );
  }
}

/** A sender that does not know epochs: everything may be delivered at once. */
function withoutEpoch(frame: Uint8Array): Uint8Array {
  if (frame[0] !== FrameType.Data || frame[1] === FLAG_FIN) return frame;
  const copy = frame.slice();
  encodeHeader(copy, 0, {
    type: FrameType.Data,
    flags: 0,
    lane: copy[2]!,
    length: readU32(copy, 4),
    sequence: readU64(copy, 8),
    epoch: 0,
  });
  return copy;
}
