// Requires: QEMU 9.0 or newer.
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { Guest } from '../support/lab/guest.ts';
import { Attempt, startLasting } from './failing.ts';

const RUNS_ON = expect.stringMatching(/^at the source, where it runs on/);

let source: Guest;
beforeAll(async () => {
  source = await startLasting();
});
afterAll(async () => {
  await source?.stop();
});

test('migrate_cancel', async () => {
  await using attempt = await Attempt.begin(source);
  await attempt.untilMemoryFlows();
  await source.qmp.execute('migrate_cancel');
  await attempt.untilGuestRunsOn();
  const sent = await attempt.sent();
  expect(sent.exitCode).toBe(1);
  expect(sent.failure).toMatchObject({
    code: 'ERR_STREAM_TRUNCATED',
    side: 'source',
    phase: 'precopy',
    guest: RUNS_ON,
    advice: expect.stringMatching(/source QEMU cancelled, failed or died/),
  });
  const received = await attempt.received();
  expect(received.exitCode).toBe(1);
  expect(received.failure).toMatchObject({
    code: 'ERR_STREAM_TRUNCATED',
    side: 'destination',
    guest: RUNS_ON,
  });
});

test('SIGINT to send in pre-copy: cancelled, code 5 at both ends', async () => {
  await using attempt = await Attempt.begin(source);
  await attempt.untilMemoryFlows();
  attempt.sender.signal('SIGINT');
  await attempt.untilGuestRunsOn();
  for (const [side, end] of [
    ['source', await attempt.sent()],
    ['destination', await attempt.received()],
  ] as const) {
    expect(end.exitCode).toBe(5);
    expect(end.failure).toMatchObject({ code: 'ERR_CANCELLED', side, phase: 'precopy' });
    expect(end.failure.guest).toBe('at the source, where it runs on; the migration was cancelled');
  }
});

test('SIGTERM to receive in pre-copy: cancelled, code 5 at both ends', async () => {
  await using attempt = await Attempt.begin(source);
  await attempt.untilMemoryFlows();
  attempt.receiver.signal('SIGTERM');
  await attempt.untilGuestRunsOn();
  for (const end of [await attempt.sent(), await attempt.received()]) {
    expect(end.exitCode).toBe(5);
    expect(end.failure).toMatchObject({ code: 'ERR_CANCELLED', guest: RUNS_ON });
  }
});

test('SIGKILL of receive', async () => {
  await using attempt = await Attempt.begin(source);
  await attempt.untilMemoryFlows();
  await attempt.receiver.stop('SIGKILL');
  await attempt.untilGuestRunsOn();
  const { exitCode, failure } = await attempt.sent();
  expect(exitCode).toBe(1);
  expect(failure).toMatchObject({
    code: 'ERR_PATHS_EXHAUSTED',
    side: 'source',
    phase: 'precopy',
    guest: RUNS_ON,
    advice: expect.stringMatching(/every path was lost/),
  });
});

test('SIGKILL of send', async () => {
  await using attempt = await Attempt.begin(source);
  await attempt.untilMemoryFlows();
  await attempt.sender.stop('SIGKILL');
  await attempt.untilGuestRunsOn();
  const { exitCode, failure } = await attempt.received();
  expect(exitCode).toBe(1);
  expect(failure).toMatchObject({
    code: 'ERR_PATHS_EXHAUSTED',
    side: 'destination',
    phase: 'precopy',
    guest: RUNS_ON,
  });
});

test('the destination QEMU is killed', async () => {
  await using attempt = await Attempt.begin(source);
  await attempt.untilMemoryFlows();
  process.kill(attempt.destination.pid, 'SIGKILL');
  await attempt.untilGuestRunsOn();
  for (const end of [await attempt.sent(), await attempt.received()]) {
    expect(end.exitCode).toBe(1);
    expect(end.failure).toMatchObject({
      code: 'ERR_QEMU_CLOSED',
      phase: 'precopy',
      guest: RUNS_ON,
    });
    expect(end.failure.message).toMatch(/Destination QEMU did not take the migration/);
    expect(end.failure.advice).toMatch(/destination QEMU's own log/);
  }
});

test.each([
  { what: 'less memory', guest: { memoryMiB: 64 } },
  { what: 'another machine', guest: { machine: 'pc' } },
])('the destination QEMU has $what', async ({ guest }) => {
  await using attempt = await Attempt.begin(source, { guest });
  await attempt.untilGuestRunsOn();
  for (const end of [await attempt.sent(), await attempt.received()]) {
    expect(end.exitCode).toBe(1);
    expect(end.failure).toMatchObject({ code: 'ERR_QEMU_CLOSED', guest: RUNS_ON });
    expect(end.failure.advice).toMatch(/destination QEMU's own log/);
  }
});

/**
 * Its channels come at once or by and by; a QEMU that lost one too early waited for ever, and could
 * not be migrated again.
 */
test.each([1, 2, 3, 8])(
  'multifd with %i channels is refused, and can be turned off for the next attempt',
  async (channels) => {
    await using attempt = await Attempt.begin(source, {
      settings: {
        capabilities: { multifd: true },
        parameters: { 'multifd-channels': channels },
      },
    });
    await attempt.untilGuestRunsOn();
    const { exitCode, failure } = await attempt.sent();
    expect(exitCode).toBe(1);
    expect(failure).toMatchObject({
      code: expect.stringMatching(/^ERR_(QEMU_CHANNELS|STREAM_MULTIFD)$/),
      side: 'source',
      guest: RUNS_ON,
      advice: expect.stringMatching(/multifd off|turn off multifd/),
    });
    expect((await attempt.received()).exitCode).toBe(1);
  },
);

test('last, the source QEMU itself is killed', async () => {
  await using attempt = await Attempt.begin(source);
  await attempt.untilMemoryFlows();
  process.kill(source.pid, 'SIGKILL');
  for (const end of [await attempt.sent(), await attempt.received()]) {
    expect(end.exitCode).toBe(1);
    expect(end.failure).toMatchObject({ code: 'ERR_STREAM_TRUNCATED', phase: 'precopy' });
    expect(end.failure.advice).toMatch(/cancelled, failed or died: ask it/);
  }
});
