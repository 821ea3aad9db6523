import { expect, test } from 'vitest';
import { encodeFrame } from '../../src/frame/encode.ts';
import { decodeHeader, emptyHeader, FrameType } from '../../src/frame/header.ts';
import { HEADER_BYTES } from '../../src/frame/limits.ts';

test('encodeFrame() makes a header and a copy of the payload', () => {
  const payload = new Uint8Array([1, 2, 3]);
  const bytes = encodeFrame(FrameType.Close, { payload });
  payload.fill(9);
  const into = emptyHeader();
  decodeHeader(bytes, 0, { into, stage: 'session' });
  expect(into).toMatchObject({ type: FrameType.Close, length: 3, sequence: 0, lane: 0 });
  expect([...bytes.subarray(HEADER_BYTES)]).toEqual([1, 2, 3]);
});

test('encodeFrame() writes lane and sequence', () => {
  const into = emptyHeader();
  const bytes = encodeFrame(FrameType.Credit, { lane: 5, sequence: 77 });
  expect(bytes.length).toBe(HEADER_BYTES);
  decodeHeader(bytes, 0, { into, stage: 'session' });
  expect(into).toMatchObject({ type: FrameType.Credit, lane: 5, sequence: 77, length: 0 });
});
