import { expect, test } from 'vitest';
import { missingOfClientHello } from '../../src/path/client-hello.ts';

test.each([
  ['its first byte', [0x16], 4],
  ['all but the last byte of its header', [0x16, 3, 1, 2], 1],
  ['its header', [0x16, 3, 1, 0x02, 0x01], 0x201],
  ['its header, for the longest record', [0x16, 3, 1, 0x40, 0], 16384],
  ['a part of it', [0x16, 3, 1, 0, 4, 1, 2, 3], 1],
  ['all of it', [0x16, 3, 1, 0, 4, 1, 2, 3, 4], 0],
  ['more than it', [0x16, 3, 1, 0, 4, 1, 2, 3, 4, 0x17, 3], 0],
  ['a record that is too long', [0x16, 3, 1, 0x40, 1], undefined],
  ['another record', [0x17], undefined],
  ['an alert', [0x15, 3, 3, 0, 2, 2, 40], undefined],
  ['a frame of ours', [0x01, 0, 0, 0], undefined],
])('missingOfClientHello() knows of %s what is missing', (_what, bytes, missing) => {
  expect(missingOfClientHello(Uint8Array.from(bytes))).toBe(missing);
});
