import { randomBytes } from 'node:crypto';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  decodeEntriesMessage,
  decodeStage,
  decodeStaged,
  encodeEntries,
  encodeStage,
  encodeStaged,
  type StageMessage,
} from '../../src/migration/stage-message.ts';
import { ENTRIES_BYTES_MAX } from '../../src/staging/limits.ts';
import { type EncodedMessage, MessageKind } from '../../src/stream/message.ts';

const ROOM_BYTES = 24;
const MALFORMED = expect.objectContaining({ code: 'ERR_MESSAGE' });

function payloadOf({ buffer, start, end }: EncodedMessage): Uint8Array {
  expect(start).toBe(ROOM_BYTES);
  return buffer.slice(start, end);
}

const STAGE: StageMessage = {
  scope: { vm: 'a1b2c3d4', attempt: '00112233445566778899aabbccddeeff' },
  key: new Uint8Array(randomBytes(32)),
  intermediaries: ['redis://10.0.0.1', 'redis+unix:/run/redis'],
};

test('"stage" is read as it was written', () => {
  const address = fc.string({ unit: 'grapheme', minLength: 1, maxLength: 60 });
  fc.assert(
    fc.property(
      fc.array(address, { maxLength: 64 }),
      fc.uint8Array({ minLength: 32, maxLength: 32 }),
      (intermediaries, key) => {
        const stage = { ...STAGE, key, intermediaries };
        const payload = payloadOf(encodeStage(stage, ROOM_BYTES));
        expect(payload[0]).toBe(MessageKind.Stage);
        const read = decodeStage(payload);
        expect({ ...read, key: new Uint8Array(read.key) }).toEqual(stage);
      },
    ),
  );
});

/** A "stage" whose fields are others. */
function stageWith(fields: Record<string, unknown>): Uint8Array {
  const { scope, key, intermediaries } = STAGE;
  const text = Buffer.from(key).toString('base64');
  const all = { v: 1, ...scope, key: text, intermediaries, ...fields };
  return new Uint8Array([MessageKind.Stage, ...Buffer.from(JSON.stringify(all))]);
}

test.each([
  ['another version', { v: 2 }],
  ['no version', { v: undefined }],
  ['a guest without a name', { vm: '' }],
  ['a guest whose name leaves the prefix', { vm: 'a:b' }],
  ['a guest with a long name', { vm: 'a'.repeat(65) }],
  ['a guest that is a number', { vm: 7 }],
  ['a short attempt', { attempt: '00' }],
  ['an attempt that is no number', { attempt: 'x'.repeat(32) }],
  ['a short key', { key: Buffer.alloc(31).toString('base64') }],
  ['a long key', { key: Buffer.alloc(33).toString('base64') }],
  ['a key that is no text', { key: [1, 2, 3] }],
  ['too many', { intermediaries: Array.from({ length: 65 }, () => 'redis://a') }],
  ['one that is no text', { intermediaries: ['redis://a', 7] }],
  ['one that is too long', { intermediaries: [`redis://${'a'.repeat(512)}`] }],
  ['no list of them', { intermediaries: 'redis://a' }],
])('"stage" is refused with %s', (_, fields) => {
  expect(() => decodeStage(stageWith({}))).not.toThrow();
  expect(() => decodeStage(stageWith(fields))).toThrow(MALFORMED);
});

test.each([
  ['', 'nothing'],
  ['null', 'null'],
  ['[]', 'a list'],
  ['{', 'half an object'],
  [`"${'a'.repeat(70_000)}"`, 'more than is allowed'],
])('"stage" is refused if it is %s', (text) => {
  const payload = new Uint8Array([MessageKind.Stage, ...Buffer.from(text)]);
  expect(() => decodeStage(payload)).toThrow(MALFORMED);
});

test('"stage" is not written longer than it may be', () => {
  const intermediaries = Array.from({ length: 64 }, () => 'ä'.repeat(512));
  const write = () => encodeStage({ ...STAGE, intermediaries }, ROOM_BYTES);
  expect(write).toThrow(/addresses of the intermediaries are too long/);
});

const digests = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });

test('"staged" is read as it was written', () => {
  fc.assert(
    fc.property(fc.boolean(), fc.boolean(), digests, (hasAll, takesPages, digest) => {
      const staged = { hasAll, takesPages, digest };
      const payload = payloadOf(encodeStaged(staged, ROOM_BYTES));
      expect(payload[0]).toBe(MessageKind.Staged);
      expect(decodeStaged(payload)).toEqual(staged);
    }),
  );
});

test('"staged" is refused in another form', () => {
  const payload = payloadOf(
    encodeStaged({ hasAll: true, takesPages: true, digest: 1n }, ROOM_BYTES),
  );
  for (const length of [1, 15]) {
    expect(() => decodeStaged(payload.slice(0, length))).toThrow(MALFORMED);
  }
  expect(() => decodeStaged(Uint8Array.of(...payload, 0))).toThrow(MALFORMED);
  for (const at of [1, 2]) {
    expect(() => decodeStaged(payload.with(at, 2))).toThrow(MALFORMED);
  }
});

test('"entries" carries bytes, and not too many', () => {
  for (const bytes of [0, 1, ENTRIES_BYTES_MAX]) {
    const entries = new Uint8Array(randomBytes(bytes));
    const payload = payloadOf(encodeEntries(entries, ROOM_BYTES));
    expect(payload[0]).toBe(MessageKind.Entries);
    expect(Buffer.compare(decodeEntriesMessage(payload), entries)).toBe(0);
  }
  const payload = new Uint8Array(2 + ENTRIES_BYTES_MAX);
  expect(() => decodeEntriesMessage(payload)).toThrow(MALFORMED);
});
