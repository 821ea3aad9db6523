import { expect, test } from 'vitest';
import { crc32c } from '../../src/frame/crc.ts';

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

test('crc32c() gives the values of RFC 3720, appendix B.4', () => {
  expect(crc32c(bytes('123456789'), 0, 9)).toBe(0xe3069283);
  expect(crc32c(new Uint8Array(32), 0, 32)).toBe(0x8a9136aa);
  expect(crc32c(new Uint8Array(32).fill(0xff), 0, 32)).toBe(0x62a8ab43);
  expect(
    crc32c(
      Uint8Array.from({ length: 32 }, (_, at) => at),
      0,
      32,
    ),
  ).toBe(0x46dd794e);
});

test('crc32c() looks at the bytes from start to end only', () => {
  expect(crc32c(bytes('xx123456789yy'), 2, 11)).toBe(0xe3069283);
  expect(crc32c(bytes('abc'), 1, 1)).toBe(0);
});
