import { expect, test } from 'vitest';
import { formatPaths, formatSessions, printable } from '../../src/cli/table.ts';
import { pathReport, sessionReport } from '../control/support.ts';

const PATHS = [
  pathReport({ sentBytes: 5 * 1024 ** 3, maxBytesPerSecond: 25_000_000 }),
  pathReport({ id: 1, local: '[fd00::1]:1', isParked: true, bytesPerSecond: 0, rttMs: 0 }),
  pathReport({ id: 12, state: 'lost', isParked: true, rttMs: 123.45 }),
  pathReport({ id: 13, state: 'closed' }),
];

test('formatPaths() is a table that says what is not known, and what has no limit', () => {
  expect(formatPaths(sessionReport({ paths: PATHS })).split('\n')).toEqual([
    'id  state   local           remote         rate      rtt       sent     cap',
    '0   open    10.1.0.1:40000  10.1.0.2:7700  1 Gbit/s  0.5 ms    5.0 GiB  200 Mbit/s',
    '1   parked  [fd00::1]:1     10.1.0.2:7700  -         -         1000 B   -',
    '12  lost    10.1.0.1:40000  10.1.0.2:7700  1 Gbit/s  123.5 ms  1000 B   -',
    '13  closed  10.1.0.1:40000  10.1.0.2:7700  1 Gbit/s  0.5 ms    1000 B   -',
    '',
  ]);
});

test('formatPaths() tells the destination what it received', () => {
  const text = formatPaths(sessionReport({ side: 'destination' }));
  expect(text).toContain('  received  cap\n');
  expect(text).toContain('  2.0 KiB   -\n');
});

test('formatSessions() is a line for each, with its open paths', () => {
  const sessions = [
    sessionReport({ paths: PATHS }),
    sessionReport({
      id: 'f'.repeat(32),
      name: '',
      side: 'destination',
      elapsedMs: 65_000,
      paths: [],
    }),
  ];
  expect(formatSessions(sessions).split('\n')).toEqual([
    'session   name  side         phase    time       paths',
    '1a2b3c4d  vm1   source       precopy  1.5 s      2/4',
    'ffffffff  -     destination  precopy  1 min 5 s  0/0',
    '',
  ]);
});

test('a name cannot command the terminal', () => {
  expect(formatSessions([sessionReport({ name: 'a\u001b[2J\nb\u009b\u202e' })])).toContain(
    'a?[2J?b??',
  );
  expect(printable('vm-1 übung')).toBe('vm-1 übung');
});
