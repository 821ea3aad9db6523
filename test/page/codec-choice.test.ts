import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Codec } from '../../src/native.ts';
import { CodecChoice } from '../../src/page/codec-choice.ts';

/** More batches than any number of steps of the ladder takes. */
const MANY = 200;

function nextMany(choice: CodecChoice, waitingBytes: number): Codec {
  let codec: Codec = choice.current.codec;
  for (let count = 0; count < MANY; count++) codec = choice.next(waitingBytes).codec;
  return codec;
}

describe('a codec that was asked for', () => {
  test.each([
    ['none', Codec.None],
    ['lz4', Codec.Lz4],
    ['zstd', Codec.Zstd],
  ] as const)('%s stays, whatever happens', (name, codec) => {
    const choice = new CodecChoice(name);
    for (const waitingBytes of [0, 1, 1e6]) {
      expect(nextMany(choice, waitingBytes)).toBe(codec);
    }
  });
});

describe('auto', () => {
  test('begins with LZ4', () => {
    expect(new CodecChoice('auto').next(0).codec).toBe(Codec.Lz4);
  });

  test('climbs to zstd while batches wait for paths, and down while paths wait', () => {
    const choice = new CodecChoice('auto');
    expect(nextMany(choice, 1)).toBe(Codec.Zstd);
    expect(nextMany(choice, 0)).toBe(Codec.Lz4);
    expect(nextMany(choice, 1)).toBe(Codec.Zstd);
  });

  test('needs several batches that agree', () => {
    const choice = new CodecChoice('auto');
    const first = choice.current;
    for (let count = 0; count < MANY; count++) choice.next(count % 2);
    expect(choice.current).toEqual(first);
  });

  test('climbs faster at first, and never again after a step down', () => {
    const choice = new CodecChoice('auto');
    const stepsIn = (batches: number, waitingBytes: number): number => {
      const names = new Set([choice.current.name]);
      for (let count = 0; count < batches; count++) names.add(choice.next(waitingBytes).name);
      return names.size - 1;
    };
    expect(stepsIn(6, 1)).toBe(3);
    expect(stepsIn(6, 0)).toBe(1);
    expect(stepsIn(6, 1)).toBe(1);
  });

  test.each(['auto', 'none', 'lz4', 'zstd'] as const)(
    '%s: says whether the network is the limit, once several batches agree',
    (name) => {
      const choice = new CodecChoice(name);
      expect(choice.isNetworkLimit).toBe(false);
      nextMany(choice, 1);
      expect(choice.isNetworkLimit).toBe(true);
      choice.next(0);
      expect(choice.isNetworkLimit).toBe(true);
      nextMany(choice, 0);
      expect(choice.isNetworkLimit).toBe(false);
    },
  );

  test('always gives a step of the ladder', () => {
    fc.assert(
      fc.property(fc.array(fc.nat(3), { maxLength: 300 }), (waiting) => {
        const choice = new CodecChoice('auto');
        for (const waitingBytes of waiting) {
          const { codec, level, name, findsSimilar } = choice.next(waitingBytes);
          expect([Codec.Lz4, Codec.Zstd]).toContain(codec);
          expect(Number.isInteger(level)).toBe(true);
          expect(name).not.toBe('');
          expect(findsSimilar && codec !== Codec.Zstd).toBe(false);
        }
      }),
    );
  });
});
