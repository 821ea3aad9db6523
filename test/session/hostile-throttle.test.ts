import { describe, expect, test } from 'vitest';
import { type JoinAttempt, JoinThrottle } from '../../src/session/join-throttle.ts';
import { JOIN_FAULTS_MAX, JOIN_FAULTS_MS, JOIN_RECORDS_MAX } from '../../src/session/limits.ts';

const EVIL: JoinAttempt = { network: 'evil', session: 'one' };
const HONEST: JoinAttempt = { network: 'honest', session: 'one' };

function blame(throttle: JoinThrottle, attempt: JoinAttempt, times = JOIN_FAULTS_MAX, nowMs = 0) {
  for (let left = times; left > 0; left--) throttle.noteWrongProof(attempt, nowMs);
}

describe('JoinThrottle', () => {
  test('refuses a network and session together, and neither of them alone', () => {
    const throttle = new JoinThrottle();
    blame(throttle, EVIL, JOIN_FAULTS_MAX - 1);
    expect(throttle.isRefused(EVIL, 0)).toBe(false);
    blame(throttle, EVIL, 1);
    expect(throttle.isRefused(EVIL, 0)).toBe(true);
    expect(throttle.isRefused(HONEST, 0)).toBe(false);
    expect(throttle.isRefused({ ...EVIL, session: 'other' }, 0)).toBe(false);
  });

  test('refuses at the first fault who has failed with other sessions before', () => {
    const throttle = new JoinThrottle();
    for (let index = 1; index < JOIN_FAULTS_MAX; index++) {
      throttle.noteUnknown({ network: 'evil', session: `guess ${index}` }, 0);
    }
    blame(throttle, EVIL, 1);
    expect(throttle.isRefused(EVIL, 0)).toBe(true);
  });

  test('refuses at the first fault where others have failed with the session before', () => {
    const throttle = new JoinThrottle();
    blame(throttle, EVIL);
    const second = { ...EVIL, network: 'evil too' };
    blame(throttle, second, 1);
    expect(throttle.isRefused(second, 0)).toBe(true);
    expect(throttle.isRefused(HONEST, 0)).toBe(false);
  });

  test('forgets faults and refusals when their time is over', () => {
    const throttle = new JoinThrottle();
    blame(throttle, EVIL, JOIN_FAULTS_MAX - 1, 0);
    blame(throttle, EVIL, JOIN_FAULTS_MAX - 1, JOIN_FAULTS_MS);
    expect(throttle.isRefused(EVIL, JOIN_FAULTS_MS)).toBe(false);
    blame(throttle, EVIL, 1, JOIN_FAULTS_MS + 1);
    expect(throttle.isRefused(EVIL, 2 * JOIN_FAULTS_MS)).toBe(true);
    expect(throttle.isRefused(EVIL, 2 * JOIN_FAULTS_MS + 1)).toBe(false);
  });

  test('keeps no more than its limit, however many come', () => {
    const throttle = new JoinThrottle();
    for (let index = 0; index < 20 * JOIN_RECORDS_MAX; index++) {
      blame(throttle, { network: `network ${index}`, session: `session ${index}` });
      throttle.noteUnknown({ network: `guesser ${index}`, session: '' }, 0);
    }
    expect(throttle.size).toBeLessThanOrEqual(3 * JOIN_RECORDS_MAX);
  });
});
