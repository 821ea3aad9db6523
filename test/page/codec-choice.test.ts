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
      choice.learn(1000, 1000);
      expect(choice.next(waitingBytes).codec).toBe(codec);
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

  test('rests after batches that did not shrink, longer each time, and not for ever', () => {
    const choice = new CodecChoice('auto');
    const rests: number[] = [];
    for (let count = 0; count < 8; count++) {
      choice.learn(1000, 1000);
      let rest = 0;
      while (choice.next(rest % 2).codec === Codec.None) rest++;
      rests.push(rest);
    }
    expect(rests).toEqual([...rests].sort((one, other) => one - other));
    expect(rests[0]).toBeGreaterThan(0);
    expect(rests.at(-1)).toBe(rests.at(-2));
    choice.learn(1000, 1000);
    choice.learn(1000, 300);
    expect(choice.next(0).codec).not.toBe(Codec.None);
  });

  test('a batch without literals teaches nothing', () => {
    const choice = new CodecChoice('auto');
    choice.learn(0, 0);
    expect(choice.next(0).codec).toBe(Codec.Lz4);
  });

  test('always gives a step of the ladder', () => {
    const event = fc.oneof(
      fc.record({ waitingBytes: fc.nat() }),
      fc.record({ literalBytes: fc.nat(1000), wireBytes: fc.nat(1000) }),
    );
    fc.assert(
      fc.property(fc.array(event, { maxLength: 300 }), (events) => {
        const choice = new CodecChoice('auto');
        for (const each of events) {
          if ('waitingBytes' in each) {
            const { codec, level, name } = choice.next(each.waitingBytes);
            expect([Codec.None, Codec.Lz4, Codec.Zstd]).toContain(codec);
            expect(Number.isInteger(level)).toBe(true);
            expect(name).not.toBe('');
          } else {
            choice.learn(each.literalBytes, each.wireBytes);
          }
        }
      }),
    );
  });
});
