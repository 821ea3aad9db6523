import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { SEQUENCE_WINDOW } from '../../src/frame/limits.ts';
import { SequenceSet } from '../../src/frame/sequence-set.ts';

describe('SequenceSet', () => {
  test('knows what was added, as a plain set does', () => {
    fc.assert(
      fc.property(fc.array(fc.nat(60)), (sequences) => {
        const set = new SequenceSet();
        const model = new Set<number>();
        for (const sequence of sequences) {
          if (!set.has(sequence)) set.add(sequence);
          model.add(sequence);
          for (let probe = 0; probe <= 61; probe++) expect(set.has(probe)).toBe(model.has(probe));
          let base = 0;
          while (model.has(base)) base++;
          expect(set.base).toBe(base);
        }
      }),
    );
  });

  test('stays right while its window goes round', () => {
    const set = new SequenceSet();
    const turns = 3 * SEQUENCE_WINDOW;
    // Each sequence comes one late, so the base waits and jumps.
    for (let sequence = 1; sequence < turns; sequence += 2) {
      set.add(sequence);
      expect(set.base).toBe(sequence - 1);
      expect(set.has(sequence - 1)).toBe(false);
      set.add(sequence - 1);
      expect(set.base).toBe(sequence + 1);
      expect(set.has(sequence + 1)).toBe(false);
    }
  });

  test('takes what is less than a window ahead of its base, and no more', () => {
    const set = new SequenceSet();
    for (const base of [0, 1, 2]) {
      expect(set.base).toBe(base);
      expect(set.fits(base + SEQUENCE_WINDOW - 1)).toBe(true);
      expect(set.fits(base + SEQUENCE_WINDOW)).toBe(false);
      expect(set.has(base + SEQUENCE_WINDOW)).toBe(false);
      set.add(base);
    }
  });
});
