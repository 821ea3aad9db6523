import fc from 'fast-check';
import { beforeEach, describe, expect, test } from 'vitest';
import { PathError } from '../../src/errors.ts';
import { readU16, readU64 } from '../../src/frame/bytes.ts';
import { FrameType, type Stage } from '../../src/frame/header.ts';
import { HEADER_BYTES } from '../../src/frame/limits.ts';
import type { LinkHandlers, PathLink } from '../../src/path/link.ts';
import { EventLog } from '../../src/session/events.ts';
import {
  COPIED_BYTES_MIN,
  COPIED_SHARE,
  COPY_GAIN,
  COPY_QUEUE_MS,
  TRIAL_BYTES,
} from '../../src/session/limits.ts';
import { OutboundLane } from '../../src/session/outbound.ts';
import { PathSet, type SessionPath } from '../../src/session/path-set.ts';
import { Striper } from '../../src/session/striping.ts';
import { SimulatedNetwork } from '../support/network.ts';

const WINDOW_BYTES = 64 * 2 ** 20;
/** Bytes of a frame, header and payload. */
const FRAME_BYTES = 10_000;
const KB = 1000;
const MB = 1_000_000;

/** A link that notes which Data frames are sent; acks come when the test says so. */
class FakeLink implements PathLink {
  readonly local = 'here';
  readonly remote = 'there';
  pendingBytes = 0;
  receivedBytes = 0;
  stage: Stage = 'session';
  handlers!: LinkHandlers;
  /** Lane and sequence of each frame. */
  readonly frames: [number, number][] = [];
  ackedFrames = 0;

  get sequences(): number[] {
    return this.frames.map(([, sequence]) => sequence);
  }

  send(bytes: Uint8Array): void {
    if (bytes[0] === FrameType.Data) this.frames.push([readU16(bytes, 2), readU64(bytes, 8)]);
  }

  /** Acks the next `count` frames, as far as there are so many. */
  ack(count: number): void {
    this.ackedFrames = Math.min(this.ackedFrames + count, this.frames.length);
    const header = { flags: 0, lane: 0, length: 0, epoch: 0, sequence: this.ackedFrames };
    this.handlers.onFrame({ type: FrameType.Ack, ...header }, new Uint8Array(0));
  }

  wake(): void {}
  end(): void {}
  destroy(): void {}
}

/** A striper over paths whose rate and room the test sets. */
class Rig {
  readonly network: SimulatedNetwork = new SimulatedNetwork(1);
  readonly lanes: OutboundLane[] = [];
  readonly links: FakeLink[] = [];
  readonly paths: SessionPath[] = [];
  readonly striper: Striper;
  /** Sequences whose buffers were given back, in that order. */
  readonly givenBack: number[] = [];
  /** The same as buffers, and how many there were. */
  readonly returned: unknown[] = [];
  queued = 0;
  readonly full: Set<SessionPath> = new Set();
  readonly #set: PathSet;

  /** @param rates Bytes per second of each path; 0 if it is not known. */
  constructor(rates: readonly number[], laneCount = 1) {
    const { clock } = this.network;
    const parts = { clock, events: new EventLog(), rekeyBytes: Number.POSITIVE_INFINITY };
    const nothing = (): void => {};
    const told = { onData: nothing, onCredit: nothing, onClose: nothing, onOffer: nothing };
    const noted = { onWorn: nothing, onProbeDue: nothing, onDoubted: nothing };
    this.#set = new PathSet(
      {
        ...told,
        ...noted,
        allocate: (bytes) => new Uint8Array(bytes),
        onAcked: (frame, slot) => frame.lane.onAcked(frame, slot),
        onRoom: nothing,
        onJoined: nothing,
        onQuiet: nothing,
        onLeft: (path, frames) => {
          for (const frame of frames) frame.lane.return(frame, path.slot);
        },
        onFault: (error) => {
          throw error;
        },
      },
      parts,
    );
    for (let id = 0; id < laneCount; id++) this.lanes.push(new OutboundLane(2 * id, WINDOW_BYTES));
    const owner = { lanes: this.lanes, onTaken: nothing };
    this.striper = new Striper(owner, { paths: this.#set, clock });
    for (const rate of rates) this.#addPath(rate);
  }

  /** Puts messages into a lane; nothing is sent before `pump`. */
  queue(count: number, { lane = 0, frameBytes = FRAME_BYTES } = {}): void {
    for (let left = count; left > 0; left--) {
      const buffer = new Uint8Array(frameBytes);
      const range = { start: HEADER_BYTES, end: frameBytes };
      const onAcked = (): void => {
        this.givenBack.push(sequence);
        this.returned.push(buffer.buffer);
      };
      this.queued++;
      const message = { buffer, ...range, isOrdered: false, onAcked };
      const sequence: number = this.lanes[lane]!.send(message);
    }
  }

  /** Sends what waits over one path. */
  pumpOnto(index: number): void {
    const others = this.paths.filter((path) => path !== this.paths[index]);
    for (const path of others) path.isDraining = true;
    this.striper.pump();
    for (const path of others) path.isDraining = false;
  }

  /** A path falls silent: what only it carries may go again. */
  doubt(index: number): void {
    const path = this.paths[index]!;
    path.isDoubted = true;
    for (let at = 0; at < path.inFlightCount; at++) {
      const frame = path.inFlightAt(at);
      frame.lane.doubt(frame);
    }
  }

  lose(index: number): void {
    this.links[index]!.handlers.onClosed(new PathError('ERR_PATH_LOST', '', ''));
  }

  #addPath(bytesPerSecond: number): void {
    const link = new FakeLink();
    const path = this.#set.adopt(link, {})!;
    path.expectedBytesPerSecond = () => bytesPerSecond;
    const get = (): boolean =>
      !this.full.has(path) && !path.isDoubted && !path.isDraining && path.state === 'open';
    Object.defineProperty(path, 'hasRoom', { get });
    this.links.push(link);
    this.paths.push(path);
  }
}

describe('Striper pump()', () => {
  test('takes the lanes in turn', () => {
    const rig = new Rig([MB], 3);
    for (const lane of [0, 1, 2]) rig.queue(3, { lane });
    rig.striper.pump();
    const turns = [0, 1, 2].flatMap((turn) => [0, 2, 4].map((lane) => [lane, turn]));
    expect(rig.links[0]!.frames).toEqual(turns);
  });

  test('passes over lanes without credit, which take their turn when they have some', () => {
    const rig = new Rig([MB], 3);
    rig.lanes[1] = new OutboundLane(2, 2 * FRAME_BYTES);
    for (const lane of [0, 1, 2]) rig.queue(4, { lane });
    rig.striper.pump();
    const laneIds = (): number[] => rig.links[0]!.frames.map(([lane]) => lane);
    expect(laneIds()).toEqual([0, 2, 4, 0, 2, 4, 0, 4, 0, 4]);
    rig.lanes[1].onCredit(4 * (FRAME_BYTES - HEADER_BYTES));
    rig.striper.pump();
    expect(laneIds().slice(10)).toEqual([2, 2]);
  });

  test('sends nothing more when it was stopped', () => {
    const rig = new Rig([MB]);
    rig.striper.stop();
    rig.queue(1);
    rig.striper.pump();
    expect(rig.links[0]!.frames).toEqual([]);
  });
});

describe('Striper copies the end of what a slow path holds', () => {
  let rig: Rig;

  /** All frames lie on the slow path 0; path 1 is faster, and now idle. */
  function begin(frames: number, { rates = [10 * KB, 50 * KB], frameBytes = FRAME_BYTES } = {}) {
    rig = new Rig(rates);
    rig.queue(frames, { frameBytes });
    rig.pumpOnto(0);
    expect(rig.links[0]!.frames.length).toBe(frames);
  }

  test('onto an idle one, from the end, as far as that brings it in half the time', () => {
    begin(10);
    rig.striper.pump();
    // Copy n arrives after n / 5 seconds; its frame is number 11 - n of the slow path's.
    const copies = [9, 8, 7, 6, 5, 4, 3];
    expect(rig.links[1]!.sequences).toEqual(copies);
    expect(rig.striper.copiedBytes).toBe(copies.length * FRAME_BYTES);
    expect(COPY_GAIN).toBe(2);
  });

  test('whose buffers are given back when both paths let go, once', () => {
    begin(10);
    rig.striper.pump();
    const [slow, fast] = rig.links;
    const [lane] = rig.lanes;
    const payloadBytes = FRAME_BYTES - HEADER_BYTES;
    fast!.ack(7);
    expect(lane!.unackedBytes).toBe(3 * payloadBytes);
    expect(rig.givenBack).toEqual([]);
    slow!.ack(2);
    expect(lane!.isSettled).toBe(false);
    slow!.ack(2);
    expect(lane!.isSettled).toBe(true);
    expect(rig.givenBack).toEqual([0, 1, 2, 3]);
    rig.lose(0);
    expect(rig.givenBack).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    rig.striper.pump();
    expect(fast!.frames.length).toBe(7);
  });

  test('not as long as there is something else to send', () => {
    begin(10);
    rig.queue(1);
    rig.full.add(rig.paths[0]!);
    rig.striper.pump();
    expect(rig.links[1]!.sequences.slice(0, 3)).toEqual([10, 9, 8]);
  });

  test('not onto a path that brings it little sooner, nor onto one of which nothing is known', () => {
    begin(1, { rates: [10 * KB, 2 * 10 * KB] });
    rig.striper.pump();
    expect(rig.links[1]!.frames).toEqual([]);
    begin(4, { rates: [10 * KB, 0] });
    rig.striper.pump();
    expect(rig.links[1]!.frames).toEqual([]);
  });

  test('from one of which nothing is known: whatever it holds', () => {
    begin(3, { rates: [0, 50 * KB] });
    rig.striper.pump();
    expect(rig.links[1]!.sequences).toEqual([2, 1, 0]);
  });

  test('never again onto a path that has it', () => {
    begin(10, { rates: [10 * KB, 50 * KB, 50 * KB] });
    for (let round = 0; round < 10; round++) {
      rig.striper.pump();
      rig.links[1]!.ack(1);
    }
    for (const { sequences } of rig.links) expect(new Set(sequences).size).toBe(sequences.length);
  });

  test('never of a doubted frame: that goes again as what it is', () => {
    begin(5);
    rig.doubt(0);
    rig.striper.pump();
    expect(rig.links[1]!.sequences).toEqual([0, 1, 2, 3, 4]);
    expect(rig.striper.copiedBytes).toBe(0);
    expect(rig.lanes[0]!.queuedBytes).toBe(0);
  });

  test('never onto a doubted path, nor onto one that is being removed', () => {
    begin(10);
    rig.paths[1]!.isDoubted = true;
    rig.striper.pump();
    expect(rig.links[1]!.frames).toEqual([]);
    rig.paths[1]!.isDoubted = false;
    rig.paths[1]!.isDraining = true;
    rig.striper.pump();
    expect(rig.links[1]!.frames).toEqual([]);
  });

  test('no more of it than a share of what was sent, and some to begin with', () => {
    const frameBytes = 2 ** 20;
    const frames = 40;
    begin(frames, { rates: [1, 1000 * MB], frameBytes });
    for (let round = 0; round < frames; round++) {
      rig.striper.pump();
      rig.links[1]!.ack(frames);
    }
    const { copiedBytes } = rig.striper;
    const givenBytes = frames * frameBytes + copiedBytes;
    const most = COPIED_BYTES_MIN + COPIED_SHARE * givenBytes;
    expect(copiedBytes).toBe(rig.links[1]!.frames.length * frameBytes);
    expect(copiedBytes).toBeGreaterThanOrEqual(COPIED_BYTES_MIN);
    expect(copiedBytes).toBeLessThanOrEqual(most + frameBytes);
  });
});

describe('Striper probe()', () => {
  test('copies the latest of what others carry, enough to learn from, whatever is to be sent', () => {
    const rig = new Rig([MB, MB]);
    rig.queue(20);
    rig.pumpOnto(0);
    rig.queue(5);
    rig.striper.probe(rig.paths[1]!);
    const copies = Math.ceil(TRIAL_BYTES / FRAME_BYTES);
    const expected = Array.from({ length: copies }, (_, index) => 19 - index);
    expect(rig.links[1]!.sequences).toEqual(expected);
    expect(rig.striper.copiedBytes).toBe(copies * FRAME_BYTES);
  });

  test('copies nothing that the path has, that was acked or that is doubted', () => {
    const rig = new Rig([MB, MB, MB]);
    rig.queue(3);
    rig.pumpOnto(0);
    rig.striper.probe(rig.paths[1]!);
    rig.striper.probe(rig.paths[1]!);
    expect(rig.links[1]!.sequences).toEqual([2, 1, 0]);
    rig.links[1]!.ack(1);
    rig.lose(1);
    rig.striper.probe(rig.paths[2]!);
    expect(rig.links[2]!.sequences).toEqual([1, 0]);
    const doubted = new Rig([MB, MB]);
    doubted.queue(3);
    doubted.pumpOnto(0);
    doubted.doubt(0);
    doubted.striper.probe(doubted.paths[1]!);
    expect(doubted.links[1]!.frames).toEqual([]);
  });
});

describe('Striper sends what is urgent over every path that is idle', () => {
  let rig: Rig;

  beforeEach(() => {
    rig = new Rig([10 * MB, 10 * MB, 10 * MB], 2);
    rig.lanes[0]!.isUrgent = true;
  });

  const urgentOf = ({ frames }: FakeLink): number[] =>
    frames.flatMap(([lane, sequence]) => (lane === 0 ? [sequence] : [])).sort();

  test('each of its frames, once', () => {
    rig.queue(6, { frameBytes: 1000 });
    rig.striper.pump();
    rig.striper.pump();
    for (const link of rig.links) expect(urgentOf(link)).toEqual([0, 1, 2, 3, 4, 5]);
  });

  test('the first copy counts, and its buffer is given back when the last path lets go', () => {
    rig.queue(1, { frameBytes: 1000 });
    rig.striper.pump();
    rig.links[1]!.ack(1);
    expect(rig.lanes[0]!.isSettled).toBe(true);
    rig.lose(2);
    expect(rig.givenBack).toEqual([]);
    rig.links[0]!.ack(1);
    expect(rig.givenBack).toEqual([0]);
  });

  test('and sends it again only if all of them are lost', () => {
    rig.queue(1, { frameBytes: 1000 });
    rig.striper.pump();
    rig.lose(0);
    rig.lose(1);
    expect(rig.lanes[0]!.queuedBytes).toBe(0);
    rig.lose(2);
    expect(rig.lanes[0]!.queuedBytes).toBe(1000 - HEADER_BYTES);
    expect(rig.givenBack).toEqual([]);
  });

  test('but not over one whose queue is long, until it is short', () => {
    const queueBytes = (10 * MB * COPY_QUEUE_MS) / 1000;
    rig.queue(1, { lane: 1, frameBytes: queueBytes + 1000 });
    rig.pumpOnto(0);
    rig.queue(1, { frameBytes: 1000 });
    rig.striper.pump();
    expect(rig.links.map(urgentOf)).toEqual([[], [0], [0]]);
    rig.links[0]!.ack(1);
    rig.striper.pump();
    expect(rig.links.map(urgentOf)).toEqual([[0], [0], [0]]);
  });

  test('and nothing of the other lanes', () => {
    rig.queue(1, { lane: 1, frameBytes: 1000 });
    rig.pumpOnto(0);
    rig.striper.pump();
    expect(rig.links.map(({ frames }) => frames.length)).toEqual([1, 0, 0]);
  });
});

describe('Striper and everything that can happen to it', () => {
  const paths = 3;
  const path = fc.nat(paths - 1);
  const happening = fc.oneof(
    fc.record({ what: fc.constant('queue' as const), lane: fc.nat(2), frames: fc.nat(5) }),
    fc.record({ what: fc.constant('ack' as const), path, frames: fc.nat(4) }),
    fc.record({ what: fc.constant('full' as const), path }),
    fc.record({ what: fc.constant('room' as const), path }),
    fc.record({ what: fc.constant('doubt' as const), path }),
    fc.record({ what: fc.constant('heard' as const), path }),
    fc.record({ what: fc.constant('probe' as const), path }),
    fc.record({ what: fc.constant('lose' as const), path }),
  );
  type Happening = typeof happening extends fc.Arbitrary<infer T> ? T : never;

  function happen(rig: Rig, event: Happening): void {
    if (event.what === 'queue') {
      rig.queue(event.frames, { lane: event.lane });
      return;
    }
    const one = rig.paths[event.path]!;
    if (one.state !== 'open') return;
    if (event.what === 'ack') rig.links[event.path]!.ack(event.frames);
    else if (event.what === 'full') rig.full.add(one);
    else if (event.what === 'room') rig.full.delete(one);
    else if (event.what === 'doubt') rig.doubt(event.path);
    else if (event.what === 'heard') one.isDoubted = false;
    else if (event.what === 'probe') rig.striper.probe(one);
    else if (event.path > 0) rig.lose(event.path);
  }

  /** Buffers that some path still reads. */
  function buffersIn({ paths: all }: Rig): Set<unknown> {
    const held = new Set<unknown>();
    for (const one of all) {
      for (let at = 0; at < one.inFlightCount; at++) held.add(one.inFlightAt(at).bytes.buffer);
    }
    return held;
  }

  test('each frame goes over a path once, and its buffer is given back once, when all let go', () => {
    const rates = fc.array(fc.constantFrom(0, 10 * KB, MB, 50 * MB), {
      minLength: paths,
      maxLength: paths,
    });
    fc.assert(
      fc.property(rates, fc.array(happening, { maxLength: 60 }), (all, happenings) => {
        const rig = new Rig(all, 3);
        rig.lanes[1]!.isUrgent = true;
        for (const event of happenings) {
          happen(rig, event);
          rig.striper.pump();
          for (const buffer of buffersIn(rig)) expect(rig.returned).not.toContain(buffer);
        }
        for (const one of rig.paths) one.isDoubted = false;
        rig.full.clear();
        for (let round = 0; round < 1000 && !rig.lanes.every((lane) => lane.isSettled); round++) {
          rig.striper.pump();
          for (const link of rig.links) link.ack(1);
        }
        for (const link of rig.links) link.ack(1000);
        for (const lane of rig.lanes) {
          expect([lane.isSettled, lane.queuedBytes, lane.unackedBytes]).toEqual([true, 0, 0]);
        }
        for (const { frames } of rig.links) {
          expect(new Set(frames.map(String)).size).toBe(frames.length);
        }
        expect(rig.returned.length).toBe(rig.queued);
        expect(new Set(rig.returned).size).toBe(rig.queued);
      }),
      { numRuns: 300 },
    );
  });
});
