import { describe, expect, test } from 'vitest';
import type { FoundSession } from '../../src/control/client.ts';
import { findPath, findSession } from '../../src/control/find.ts';
import type { SessionReport } from '../../src/control/report.ts';
import { PagelaneError } from '../../src/errors.ts';
import { pathReport, sessionReport } from './support.ts';

const VM1 = `aaaa1111${'0'.repeat(24)}`;
const VM2 = `aaaa2222${'0'.repeat(24)}`;

const found = (values: Partial<SessionReport>): FoundSession => ({
  socket: `/${values.id}-${values.side ?? 'source'}.sock`,
  report: sessionReport(values),
});

const SESSIONS = {
  sessions: [
    found({ id: VM1, name: 'vm1' }),
    found({ id: VM1, name: 'vm1', side: 'destination' }),
    found({ id: VM2, name: 'vm2', side: 'destination' }),
    found({ id: 'b'.repeat(32), name: 'aaaa1111' }),
    found({ id: 'c'.repeat(32), name: '' }),
  ],
  failures: [],
};

const sessionError = (says: string) =>
  expect.objectContaining({ code: 'ERR_CONTROL_SESSION', message: expect.stringContaining(says) });

describe('findSession()', () => {
  test.each([
    [VM1, VM1, 'source'],
    [VM1.toUpperCase(), VM1, 'source'],
    ['aaaa2', VM2, 'destination'],
    ['AAAA2222', VM2, 'destination'],
    ['vm1', VM1, 'source'],
    ['vm2', VM2, 'destination'],
    ['bbbb', 'b'.repeat(32), 'source'],
  ])('%s', (text, id, side) => {
    expect(findSession(text, SESSIONS).report).toMatchObject({ id, side });
  });

  test('takes the end that is asked for', () => {
    const { report } = findSession('vm1', SESSIONS, { side: 'destination' });
    expect(report).toMatchObject({ id: VM1, side: 'destination' });
    expect(() => findSession('vm2', SESSIONS, { side: 'source' })).toThrow(
      sessionError('The source of session "vm2" is not on this host'),
    );
  });

  test.each(['', 'vm', 'bbb', 'VM1', `${VM1}0`, 'nothing'])('"%s" is none', (text) => {
    expect(() => findSession(text, SESSIONS)).toThrow(
      sessionError(`No process on this host has a session "${text}"`),
    );
  });

  test.each(['aaaa', 'aaaa1111'])('"%s" is more than one, and they are told', (text) => {
    expect(() => findSession(text, SESSIONS)).toThrow(sessionError(`"${text}" is more than one`));
    expect(() => findSession(text, SESSIONS)).toThrow(sessionError(VM1));
  });

  test('says that somebody could not be asked', () => {
    const failures = [new PagelaneError('ERR_CONTROL_TIMEOUT', 'why')];
    expect(() => findSession('x', { sessions: [], failures })).toThrow(
      sessionError('; 1 could not be asked'),
    );
  });
});

const PATHS = [
  pathReport({ id: 0, local: '10.1.0.1:40000', remote: '10.9.0.2:7700' }),
  pathReport({ id: 1, local: '10.2.0.1:40001', remote: '10.9.0.2:7700' }),
  pathReport({ id: 2, local: '10.3.0.1:40002', remote: '10.8.0.2:7700', state: 'lost' }),
  pathReport({ id: 3, local: '[fd00::1]:40003', remote: '[fd00::2]:7700', isParked: true }),
];

const pathError = (says: string) =>
  expect.objectContaining({ code: 'ERR_CONTROL_PATH', message: says });

describe('findPath()', () => {
  test.each([
    ['0', 0],
    ['01', 1],
    ['10.2.0.1', 1],
    ['10.2.0.1:40001', 1],
    ['fd00::1', 3],
    ['[fd00::1]', 3],
    ['[fd00::2]:7700', 3],
  ])('%s', (text, id) => {
    expect(findPath(text, PATHS).id).toBe(id);
  });

  test.each(['', '2', '4', '7700', '10.3.0.1', '10.1.0.1:1', '10.1.0', 'lost'])(
    '"%s" is no path that is open',
    (text) => {
      const says = `No path "${text}" is open; those that are: 0, 1, 3`;
      expect(() => findPath(text, PATHS)).toThrow(pathError(says));
    },
  );

  test('an address of several paths is none of them', () => {
    const says = '"10.9.0.2" is the address of paths 0, 1: give an id';
    expect(() => findPath('10.9.0.2', PATHS)).toThrow(pathError(says));
  });

  test('no path may be open at all', () => {
    expect(() => findPath('0', [])).toThrow(pathError('No path "0" is open; those that are: none'));
  });
});
