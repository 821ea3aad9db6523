import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type ControlRequest, encodeRequest, parseRequest } from '../../src/control/request.ts';
import { PagelaneError } from '../../src/errors.ts';

const REQUESTS: readonly ControlRequest[] = [
  { verb: 'report' },
  { verb: 'addPath', address: { host: 'dst', port: 7700 } },
  {
    verb: 'addPath',
    address: { host: 'fe80::1%eth0', port: 0, local: '::1', maxBytesPerSecond: 25_000_000 },
  },
  { verb: 'removePath', path: 0 },
  { verb: 'setMaxBandwidth', bytesPerSecond: 1, path: undefined },
  { verb: 'setMaxBandwidth', bytesPerSecond: undefined, path: 3 },
  { verb: 'setStageBandwidth', bytesPerSecond: 7, intermediary: 0 },
  { verb: 'setStageBandwidth', bytesPerSecond: undefined, intermediary: undefined },
];

function codeOfLine(line: string): string {
  try {
    parseRequest(line);
    return '';
  } catch (error) {
    expect(error).toBeInstanceOf(PagelaneError);
    return (error as PagelaneError).code;
  }
}

test.each(REQUESTS)('parseRequest() reads what encodeRequest() writes: %j', (request) => {
  const line = encodeRequest(request);
  expect(line).toMatch(/^[^\n]+\n$/);
  expect(parseRequest(line.trimEnd())).toEqual(request);
});

const VALID: Readonly<Record<string, Record<string, unknown>>> = {
  addPath: { v: 1, verb: 'addPath', address: { host: 'h', port: 1 } },
  removePath: { v: 1, verb: 'removePath', path: 1 },
  set: { v: 1, verb: 'setMaxBandwidth', bytesPerSecond: 5, path: 1 },
  stage: { v: 1, verb: 'setStageBandwidth', bytesPerSecond: 5, intermediary: 1 },
};
const address = (fields: Record<string, unknown>) => ({
  address: { host: 'h', port: 1, ...fields },
});

describe('parseRequest() checks every field', () => {
  test.each([
    ['stage', { bytesPerSecond: 0 }, /"bytesPerSecond" must be a whole number/],
    ['stage', { intermediary: -1 }, /"intermediary" must be a whole number/],
    ['removePath', { v: 2 }, /its version is 2, not 1/],
    ['removePath', { v: undefined }, /"v" must be a whole number/],
    ['removePath', { verb: 7 }, /"verb" must be a text/],
    ['removePath', { path: -1 }, /"path" must be a whole number from 0/],
    ['removePath', { path: 1.5 }, /"path" must be a whole number/],
    ['removePath', { path: '1' }, /"path" must be a whole number/],
    ['removePath', { path: 1e300 }, /"path" must be a whole number/],
    ['removePath', { path: undefined }, /"path" must be a whole number/],
    ['removePath', { paths: 1 }, /there is no field "paths"/],
    ['set', { bytesPerSecond: undefined }, /"bytesPerSecond" must be a whole number from 1/],
    ['set', { bytesPerSecond: 0 }, /"bytesPerSecond" must be a whole number from 1/],
    ['set', { bytesPerSecond: 'off' }, /"bytesPerSecond" must be/],
    ['set', { path: null }, /"path" must be a whole number/],
    ['set', { bytespersecond: 9 }, /there is no field "bytespersecond"/],
    ['addPath', { address: 'h:1' }, /"address" of request: expected an object/],
    ['addPath', { address: ['h'] }, /"address" of request: expected an object/],
    ['addPath', { address: undefined }, /"address" of request: expected an object/],
    ['addPath', address({ host: '' }), /"host" must be a host/],
    ['addPath', address({ host: 'a b' }), /"host" must be a host/],
    ['addPath', address({ host: 'a\0' }), /"host" must be a host/],
    ['addPath', address({ host: 'x'.repeat(256) }), /at most 255 characters/],
    ['addPath', address({ port: 65536 }), /"port" must be a whole number from 0 to 65535/],
    ['addPath', address({ local: '' }), /"local" must be a host/],
    ['addPath', address({ local: 4 }), /"local" must be a text/],
    ['addPath', address({ maxBytesPerSecond: 0 }), /"maxBytesPerSecond" must be/],
    ['addPath', address({ key: 'k' }), /there is no field "key"/],
  ])('%s with %j', (name, fields, says) => {
    const valid = VALID[name]!;
    expect(codeOfLine(JSON.stringify(valid))).toBe('');
    const line = JSON.stringify({ ...valid, ...fields });
    expect(codeOfLine(line)).toBe('ERR_CONTROL_REQUEST');
    expect(() => parseRequest(line)).toThrow(says);
  });

  test.each(['', 'null', '[]', '7', '"report"', '{', '{"v":1,"verb":"report"}x', '\0'])(
    'refuses the line %j',
    (line) => {
      expect(codeOfLine(line)).toBe('ERR_CONTROL_REQUEST');
    },
  );

  test.each(['', 'Report', 'toString', '__proto__', 'quit\u001b[2J'])('refuses verb %j', (verb) => {
    const line = JSON.stringify({ v: 1, verb });
    expect(codeOfLine(line)).toBe('ERR_CONTROL_VERB');
    expect(() => parseRequest(line)).toThrow(`There is no verb ${JSON.stringify(verb)}: expected`);
  });

  test('whatever comes is a request, or an error with a code', () => {
    const line = fc.oneof(
      fc.string(),
      fc.json(),
      fc.jsonValue().map((value) => JSON.stringify(value)),
    );
    fc.assert(
      fc.property(line, (text) => {
        expect(['ERR_CONTROL_REQUEST', 'ERR_CONTROL_VERB', '']).toContain(codeOfLine(text));
      }),
    );
  });
});
