import { describe, expect, test } from 'vitest';
import { FrameDecoder, type FrameSink } from '../../src/frame/decode.ts';
import { encodeFrame } from '../../src/frame/encode.ts';
import { encodeHeader, type FrameHeader, FrameType } from '../../src/frame/header.ts';
import { HEADER_BYTES } from '../../src/frame/limits.ts';
import { createPrng, exactRandomBytes } from '../support/prng.ts';

interface Seen {
  readonly header: FrameHeader;
  readonly payload: Uint8Array;
}

class Collector implements FrameSink {
  readonly seen: Seen[] = [];
  readonly allocated: number[] = [];

  allocate(bytes: number): Uint8Array {
    this.allocated.push(bytes);
    return new Uint8Array(bytes);
  }

  onFrame(header: Readonly<FrameHeader>, payload: Uint8Array): void {
    this.seen.push({ header: { ...header }, payload });
  }
}

function sessionDecoder(sink: FrameSink): FrameDecoder {
  const decoder = new FrameDecoder(sink);
  decoder.stage = 'session';
  return decoder;
}

/** A stream of frames: data of several lengths, and small ones between them. */
function stream(seed: number, lengths: readonly number[]): Uint8Array {
  const random = createPrng(seed);
  const parts = lengths.flatMap((length, sequence) => {
    const frame = new Uint8Array(HEADER_BYTES + length);
    const header = { type: FrameType.Data, flags: 0, lane: 1, length, sequence, epoch: 0 };
    encodeHeader(frame, 0, header);
    frame.set(exactRandomBytes(random, length), HEADER_BYTES);
    return [frame, encodeFrame(FrameType.Ack, { sequence })];
  });
  return new Uint8Array(Buffer.concat(parts));
}

function decodeWhole(bytes: Uint8Array): Seen[] {
  const sink = new Collector();
  sessionDecoder(sink).push(bytes);
  return sink.seen;
}

describe('FrameDecoder push()', () => {
  test('yields every frame of one chunk', () => {
    const seen = decodeWhole(stream(1, [0, 1, 100]));
    expect(seen.map(({ header }) => header.type)).toEqual([16, 17, 16, 17, 16, 17]);
    expect(seen.map(({ payload }) => payload.length)).toEqual([0, 0, 1, 0, 100, 0]);
  });

  test('yields the same frames wherever the stream is cut in two', () => {
    const bytes = stream(2, [5, 0, 40, 1]);
    const whole = decodeWhole(bytes);
    for (let cut = 0; cut <= bytes.length; cut++) {
      const sink = new Collector();
      const decoder = sessionDecoder(sink);
      decoder.push(bytes.subarray(0, cut));
      decoder.push(bytes.subarray(cut));
      expect(sink.seen).toEqual(whole);
      expect(decoder.isAtBoundary).toBe(true);
    }
  });

  test('yields the same frames byte by byte', () => {
    const bytes = stream(3, [3, 0, 33]);
    const sink = new Collector();
    const decoder = sessionDecoder(sink);
    for (const byte of bytes) decoder.push(new Uint8Array([byte]));
    expect(sink.seen).toEqual(decodeWhole(bytes));
  });

  test.each(Array.from({ length: 30 }, (_, seed) => seed))(
    'yields the same frames for random cuts and direct reads: seed %i',
    (seed) => {
      const random = createPrng(seed);
      const lengths = Array.from({ length: 20 }, () => Math.floor(random() ** 2 * 3000));
      const bytes = stream(seed, lengths);
      const sink = new Collector();
      const decoder = sessionDecoder(sink);
      for (let at = 0; at < bytes.length; ) {
        const end = Math.min(bytes.length, at + 1 + Math.floor(random() * 500));
        const { missing } = decoder;
        if (missing !== undefined && random() < 0.5) {
          const part = bytes.subarray(at, Math.min(end, at + missing.length));
          missing.set(part);
          decoder.filled(part.length);
          at += part.length;
        } else {
          // The chunk is used again at once: nothing of it may be kept.
          const chunk = bytes.slice(at, end);
          decoder.push(chunk);
          chunk.fill(0xdd);
          at = end;
        }
      }
      expect(sink.seen).toEqual(decodeWhole(bytes));
    },
  );

  test('changes its stage between two frames of one chunk', () => {
    const sink = new Collector();
    const decoder = new FrameDecoder({
      allocate: (bytes) => sink.allocate(bytes),
      onFrame: (header, payload) => {
        sink.onFrame(header, payload);
        decoder.stage = 'session';
      },
    });
    const welcome = encodeFrame(FrameType.Welcome);
    decoder.push(Buffer.concat([welcome, encodeFrame(FrameType.Ping, { sequence: 4 })]));
    expect(sink.seen.map(({ header }) => header.type)).toEqual([FrameType.Welcome, FrameType.Ping]);
  });

  test('yields nothing after stop()', () => {
    const sink = new Collector();
    const decoder = sessionDecoder({
      allocate: (bytes) => sink.allocate(bytes),
      onFrame: (header, payload) => {
        sink.onFrame(header, payload);
        decoder.stop();
      },
    });
    decoder.push(stream(4, [10, 10]));
    decoder.push(stream(4, [10, 10]));
    expect(sink.seen.length).toBe(1);
  });

  test('asks for no memory before a header is checked', () => {
    const sink = new Collector();
    const rubbish = exactRandomBytes(createPrng(5), 1000);
    expect(() => sessionDecoder(sink).push(rubbish)).toThrow('Cannot decode frame: check is');
    const huge = new Uint8Array(HEADER_BYTES);
    const header = { type: FrameType.Data, flags: 0, lane: 0, sequence: 0, epoch: 0 };
    encodeHeader(huge, 0, { ...header, length: 2 ** 32 - 1 });
    expect(() => sessionDecoder(sink).push(huge)).toThrow('payload of Data must be <=');
    expect(sink.allocated).toEqual([]);
  });

  test('tells what of a header it holds', () => {
    const decoder = sessionDecoder(new Collector());
    decoder.push(new Uint8Array([0x15, 3, 3]));
    expect([...decoder.heldHeader]).toEqual([0x15, 3, 3]);
    expect(decoder.isAtBoundary).toBe(false);
  });
});
