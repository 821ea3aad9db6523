import { readU32, readU64 } from '../../src/frame/bytes.ts';
import { encodeHeader, FLAG_FIN, type FrameHeader, FrameType } from '../../src/frame/header.ts';
import { Session } from '../../src/session/session.ts';
import { type LinkOptions, SimulatedNetwork, type SimulatedPair } from '../support/network.ts';
import { Flow } from './flow.ts';

/** A fault that is put in on purpose: the simulation must find it. */
export type Canary = 'none' | 'epochs ignored' | 'lost frames not sent again';

const WINDOW_BYTES = 64 * 1024;

/** How often each thing has happened. */
export type Counts = Record<
  'cut' | 'silent' | 'silentOneWay' | 'stalled' | 'added' | 'repeated' | 'overtaken',
  number
>;

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
  #pathCount = 0;
  #isLost = false;
  /** What has come to pass, by name: for what the simulation covers. */
  readonly counts: Counts = {
    cut: 0,
    silent: 0,
    silentOneWay: 0,
    stalled: 0,
    added: 0,
    repeated: 0,
    overtaken: 0,
  };

  constructor(seed: number, canary: Canary) {
    this.#canary = canary;
    this.network = new SimulatedNetwork(seed);
    const { clock } = this.network;
    const common = { windowBytes: WINDOW_BYTES, peerWindowBytes: WINDOW_BYTES, clock };
    const id = new Uint8Array(16).fill(seed);
    this.client = new Session({ ...common, id, role: 'client' });
    this.server = new Session({ ...common, id, role: 'server' });
    const pathCount = 1 + Math.floor(this.network.random() * 4);
    for (let count = 0; count < pathCount; count++) this.addPath();
    this.#openLanes();
    this.#harm();
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
    this.client.adopt(pair.client);
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

  /** Harms and adds paths at random; one path always lives. */
  #harm(): void {
    const { random } = this.network;
    this.network.after(random() * 400, () => {
      if (this.#isLost) return;
      if (random() < 0.4 && this.client.hasRoomForPath && this.#alive.size < 6) {
        this.counts.added++;
        this.addPath();
      }
      const pairs = [...this.#alive];
      const pair = pairs[Math.floor(random() * pairs.length)]!;
      if (random() < 0.6 && pairs.length > 1) this.#lose(pair);
      this.#harm();
    });
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

  /** Loses every path at once: nothing is left to go on with. */
  loseAll(): void {
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
