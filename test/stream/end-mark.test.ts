import { expect, test } from 'vitest';
import { EndMark } from '../../src/stream/end-mark.ts';

/** A footer, of section 2, and EOF. */
const END = Uint8Array.of(0x7e, 0, 0, 0, 2, 0);

test.each([1, 2, 5, 6, 100])('the end of a post-copy is seen in pieces of %i bytes', (bytes) => {
  const stream = Buffer.concat([Buffer.alloc(23, 0x55), END]);
  const mark = new EndMark();
  for (let at = 0; at < stream.length; at += bytes) {
    expect(mark.isSeen).toBe(false);
    mark.push(stream.subarray(at, at + bytes));
  }
  expect(mark.isSeen).toBe(true);
  mark.push(Uint8Array.of(1));
  expect(mark.isSeen).toBe(false);
});

test('what has not begun has not ended', () => {
  const mark = new EndMark();
  expect(mark.isSeen).toBe(false);
  mark.push(new Uint8Array(0));
  mark.push(END.subarray(1));
  expect(mark.isSeen).toBe(false);
});
