import { describe, expect, test } from 'vitest';
import { codeOf } from '../../src/errors.ts';
import { writeU32 } from '../../src/frame/bytes.ts';
import { crc32c } from '../../src/frame/crc.ts';
import {
  decodeHeader,
  emptyHeader,
  encodeHeader,
  FLAG_FIN,
  type FrameHeader,
  FrameType,
  type Stage,
} from '../../src/frame/header.ts';
import {
  HEADER_BYTES,
  LANES_MAX,
  NUMBER_MAX,
  PAYLOAD_BYTES_MAX,
  SMALL_PAYLOAD_BYTES_MAX,
} from '../../src/frame/limits.ts';

const DATA: FrameHeader = {
  type: FrameType.Data,
  flags: FLAG_FIN,
  lane: 3,
  length: 1000,
  sequence: 2 ** 40 + 5,
  epoch: 2 ** 40 + 1,
};

function encode(header: Partial<FrameHeader>): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES);
  encodeHeader(bytes, 0, { ...emptyHeader(), ...header });
  return bytes;
}

function decode(bytes: Uint8Array, stage: Stage = 'session', at = 0): FrameHeader {
  const into = emptyHeader();
  decodeHeader(bytes, at, { into, stage });
  return into;
}

/** Changes bytes and makes the check right again. */
function patch(header: Partial<FrameHeader>, change: (bytes: Uint8Array) => void): Uint8Array {
  const bytes = encode(header);
  change(bytes);
  writeU32(bytes, 28, crc32c(bytes, 0, 28));
  return bytes;
}

function failure(bytes: Uint8Array, stage: Stage = 'session'): string {
  try {
    decode(bytes, stage);
  } catch (error) {
    return codeOf(error);
  }
  return 'decoded';
}

describe('header', () => {
  test('has the layout of the protocol', () => {
    const header = { ...DATA, length: 0x01020304, sequence: 0x1112131415, epoch: 0x1617181920 };
    expect([...encode(header)].slice(0, 28)).toEqual(
      [0x10, 1, 3, 0, 4, 3, 2, 1, 0x15, 0x14, 0x13, 0x12, 0x11, 0, 0, 0].concat([
        0x20, 0x19, 0x18, 0x17, 0x16, 0, 0, 0, 0, 0, 0, 0,
      ]),
    );
  });

  test('comes back, wherever it is', () => {
    const bytes = new Uint8Array(100);
    encodeHeader(bytes, 17, DATA);
    expect(decode(bytes, 'session', 17)).toEqual(DATA);
  });

  test('any bit that flips is found', () => {
    for (let bit = 0; bit < HEADER_BYTES * 8; bit++) {
      const bytes = encode(DATA);
      bytes[bit >> 3]! ^= 1 << (bit & 7);
      expect(failure(bytes)).toBe('ERR_FRAME_CHECK');
    }
  });
});

describe('decodeHeader() refuses', () => {
  test('types that are not known', () => {
    const known = new Set<number>(Object.values(FrameType));
    for (let type = 0; type < 256; type++) {
      if (known.has(type)) continue;
      for (const stage of ['handshake', 'session'] as const) {
        const bytes = patch({}, (raw) => {
          raw[0] = type;
        });
        expect(failure(bytes, stage)).toBe('ERR_FRAME_TYPE');
      }
    }
  });

  test('types that belong to the other stage', () => {
    for (const type of Object.values(FrameType)) {
      const stage = type < 0x10 ? 'session' : 'handshake';
      expect(failure(encode({ type }), stage)).toBe('ERR_FRAME_TYPE');
      expect(failure(encode({ type }), stage === 'session' ? 'handshake' : 'session')).toBe(
        'decoded',
      );
    }
  });

  test('flags, but FIN of Data, and bytes that must be 0', () => {
    expect(failure(encode({ ...DATA, flags: 2 }))).toBe('ERR_FRAME_FLAGS');
    expect(failure(encode({ type: FrameType.Ack, flags: 1 }))).toBe('ERR_FRAME_FLAGS');
    for (const at of [24, 25, 26, 27]) {
      const bytes = patch(DATA, (raw) => {
        raw[at] = 1;
      });
      expect(failure(bytes)).toBe('ERR_FRAME_FLAGS');
    }
  });

  test.each([
    [FrameType.Data, LANES_MAX - 1, 'decoded'],
    [FrameType.Data, LANES_MAX, 'ERR_FRAME_LANE'],
    [FrameType.Credit, 65535, 'ERR_FRAME_LANE'],
    [FrameType.Ack, 1, 'ERR_FRAME_LANE'],
  ])('type %i with lane %i: %s', (type, lane, outcome) => {
    expect(failure(encode({ type, lane }))).toBe(outcome);
  });

  test.each([
    [FrameType.Data, PAYLOAD_BYTES_MAX, 'decoded'],
    [FrameType.Data, PAYLOAD_BYTES_MAX + 1, 'ERR_FRAME_LENGTH'],
    [FrameType.Data, 2 ** 31, 'ERR_FRAME_LENGTH'],
    [FrameType.Data, 2 ** 32 - 1, 'ERR_FRAME_LENGTH'],
    [FrameType.Close, SMALL_PAYLOAD_BYTES_MAX, 'decoded'],
    [FrameType.Close, SMALL_PAYLOAD_BYTES_MAX + 1, 'ERR_FRAME_LENGTH'],
    [FrameType.Ping, 1, 'ERR_FRAME_LENGTH'],
  ])('type %i with %i bytes: %s', (type, length, outcome) => {
    expect(failure(encode({ type, length }))).toBe(outcome);
  });

  test('payloads of the handshake above 1 KiB', () => {
    for (const type of [FrameType.Hello, FrameType.Proof, FrameType.Refuse]) {
      const length = SMALL_PAYLOAD_BYTES_MAX;
      expect(failure(encode({ type, length }), 'handshake')).toBe('decoded');
      expect(failure(encode({ type, length: length + 1 }), 'handshake')).toBe('ERR_FRAME_LENGTH');
    }
  });

  test('sequences above 2^53 - 1, and any where the type has none', () => {
    expect(failure(encode({ type: FrameType.Ack, sequence: NUMBER_MAX }))).toBe('decoded');
    for (const high of [0x20, 0x80, 0xff]) {
      const bytes = patch({ type: FrameType.Ack }, (raw) => {
        raw[14] = high;
      });
      expect(failure(bytes)).toBe('ERR_FRAME_SEQUENCE');
    }
    expect(failure(encode({ type: FrameType.Goodbye, sequence: 1 }))).toBe('ERR_FRAME_SEQUENCE');
  });

  test('epochs above the sequence, and any where the type has none', () => {
    expect(failure(encode({ ...DATA, sequence: 5, epoch: 5 }))).toBe('decoded');
    expect(failure(encode({ ...DATA, sequence: 5, epoch: 6 }))).toBe('ERR_FRAME_EPOCH');
    expect(failure(encode({ type: FrameType.Ack, sequence: 5, epoch: 1 }))).toBe('ERR_FRAME_EPOCH');
  });
});
