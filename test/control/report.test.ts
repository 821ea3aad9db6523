import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { ANSWER_BYTES_MAX } from '../../src/control/limits.ts';
import { encodeError, encodeReport, parseAnswer } from '../../src/control/report.ts';
import { PagelaneError } from '../../src/errors.ts';
import { PATHS_MAX } from '../../src/frame/limits.ts';
import { GONE_PATHS_MAX } from '../../src/session/limits.ts';
import { pathReport, sessionReport } from './support.ts';

function lineWith(session: object, path: object = {}): string {
  const paths = [{ ...pathReport(), ...path }];
  return JSON.stringify({ v: 1, session: { ...sessionReport({ paths }), ...session } });
}

describe('parseAnswer()', () => {
  test('reads what encodeReport() writes', () => {
    const paths = [pathReport(), pathReport({ id: 1, state: 'lost', maxBytesPerSecond: 5 })];
    const report = sessionReport({ paths, name: '' });
    const line = encodeReport(report);
    expect(line).toMatch(/^[^\n]+\n$/);
    expect(parseAnswer(line.trimEnd())).toEqual(report);
  });

  test('throws what encodeError() writes', () => {
    const line = encodeError(new PagelaneError('ERR_CONTROL_PATH', 'why'));
    const wanted = expect.objectContaining({ code: 'ERR_CONTROL_PATH', message: 'why' });
    expect(() => parseAnswer(line.trimEnd())).toThrow(wanted);
    expect(() => parseAnswer(line.trimEnd())).toThrow(PagelaneError);
  });

  test('knows fields of its own version only, and passes over others', () => {
    expect(parseAnswer(lineWith({ later: 1 }, { later: 1 }))).toEqual(sessionReport());
  });

  test.each([
    [{ id: 'short' }, {}],
    [{ id: 7 }, {}],
    [{ name: null }, {}],
    [{ name: 'x'.repeat(4097) }, {}],
    [{ side: 'both' }, {}],
    [{ phase: 'later' }, {}],
    [{ elapsedMs: -1 }, {}],
    [{ elapsedMs: null }, {}],
    [{ paths: {} }, {}],
    [{ paths: [null] }, {}],
    [{}, { id: -1 }],
    [{}, { local: 1 }],
    [{}, { remote: undefined }],
    [{}, { state: 'toString' }],
    [{}, { isParked: 'no' }],
    [{}, { sentBytes: '1' }],
    [{}, { receivedBytes: -1 }],
    [{}, { rttMs: null }],
    [{}, { bytesPerSecond: [] }],
    [{}, { maxBytesPerSecond: 'off' }],
    [{}, { unackedBytes: undefined }],
  ])('refuses %j, path %j', (session, path) => {
    expect(() => parseAnswer(lineWith(session, path))).toThrow(
      expect.objectContaining({ code: 'ERR_CONTROL_ANSWER' }),
    );
  });

  test.each([
    '',
    '{}',
    '{"v":1}',
    '{"v":2,"session":{}}',
    '{"v":1,"error":{}}',
    '{"v":1,"error":{"code":"E","message":"a code that is none"}}',
    '{"v":1,"error":{"code":"ERR_X"}}',
  ])('refuses %s', (line) => {
    expect(() => parseAnswer(line)).toThrow(
      expect.objectContaining({ code: 'ERR_CONTROL_ANSWER' }),
    );
  });

  test('whatever comes is a report, or an error with a code', () => {
    fc.assert(
      fc.property(fc.json(), (text) => {
        expect(() => parseAnswer(text)).toThrow(PagelaneError);
      }),
    );
  });
});

test('an answer has room for all that a session reports', () => {
  const longest = '[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff%abcdefghijklmnop]:65535';
  const numbers = Number.MAX_VALUE;
  const path = pathReport({
    id: Number.MAX_SAFE_INTEGER,
    local: longest,
    remote: longest,
    sentBytes: numbers,
    receivedBytes: numbers,
    rttMs: numbers,
    bytesPerSecond: numbers,
    maxBytesPerSecond: numbers,
    unackedBytes: numbers,
  });
  const paths = Array.from({ length: PATHS_MAX + GONE_PATHS_MAX }, () => path);
  const name = '\u0001'.repeat(4096);
  expect(Buffer.byteLength(encodeReport(sessionReport({ paths, name })))).toBeLessThan(
    ANSWER_BYTES_MAX / 2,
  );
});
