import { expect, test } from 'vitest';
import { Fifo } from '../../src/path/fifo.ts';
import { createPrng } from '../support/prng.ts';

test('Fifo gives items in the order they came, as an array does', () => {
  const random = createPrng(1);
  const fifo = new Fifo<number>();
  const naive: number[] = [];
  for (let step = 0; step < 20_000; step++) {
    if (random() < (step < 10_000 ? 0.6 : 0.4)) {
      fifo.push(step);
      naive.push(step);
    } else {
      expect(fifo.peek()).toBe(naive[0]);
      expect(fifo.shift()).toBe(naive.shift());
    }
    expect(fifo.length).toBe(naive.length);
  }
  expect(fifo.drain()).toEqual(naive);
  expect(fifo.length).toBe(0);
  expect(fifo.shift()).toBeUndefined();
  expect(fifo.peek()).toBeUndefined();
});
