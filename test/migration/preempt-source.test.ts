import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { PreemptSource, type PreemptSourceHost } from '../../src/migration/preempt-source.ts';
import { Tally } from '../../src/migration/progress.ts';
import type { ChannelReader, QemuChannel } from '../../src/stream/endpoint.ts';

const MINUTE_MS = 60_000;

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

/** A second channel that a test plays, at a migration that has one page to wait for. */
function waiting() {
  const failures: unknown[] = [];
  const state = { isConnected: true, isRead: false, missingPages: 1 };
  let reader: ChannelReader | undefined;
  const channel = {
    address: 'unix:out',
    start: (given: ChannelReader) => {
      reader = given;
    },
  } as unknown as QemuChannel;
  const host: PreemptSourceHost = {
    tally: new Tally(),
    layout: () => undefined,
    isOver: () => false,
    isRead: () => state.isRead,
    isVerbatim: () => false,
    isBackedUp: () => false,
    isConnected: () => state.isConnected,
    missingPages: () => state.missingPages,
    put: () => {},
    takeSlot: () => undefined,
    pages: () => {},
    fail: (error) => failures.push(error),
  };
  const preempt = new PreemptSource(host);
  preempt.join(channel);
  return { preempt, failures, state, host, reader: reader! };
}

const gaveUp = expect.objectContaining({
  code: 'ERR_STREAM_TRUNCATED',
  message: expect.stringContaining('has not given 1 pages that the destination asked for'),
});

test('how long a page may take does not count while there is no path', () => {
  const { preempt, failures, state, host } = waiting();
  state.isConnected = false;
  preempt.whenAll(() => {});
  expect(host.tally.waitsFor).toBe('pages on the second channel of QEMU');
  vi.advanceTimersByTime(10 * MINUTE_MS);
  expect(failures).toEqual([]);
  state.isConnected = true;
  vi.advanceTimersByTime(MINUTE_MS);
  expect(failures).toEqual([gaveUp]);
});

test('nor while bytes of it wait for room, even if QEMU has closed the channel', () => {
  const { preempt, failures, reader } = waiting();
  reader.chunk(Uint8Array.of(0, 0, 0, 0, 0), () => {});
  reader.end();
  preempt.whenAll(() => {});
  vi.advanceTimersByTime(10 * MINUTE_MS);
  expect(failures).toEqual([]);
});

test('a channel that is closed and empty gives nothing more', () => {
  const { preempt, failures, reader } = waiting();
  preempt.whenAll(() => {});
  reader.end();
  expect(failures).toEqual([gaveUp]);
});

test('it is over when the last page has come', () => {
  const { preempt, failures, state } = waiting();
  let isDone = false;
  preempt.whenAll(() => {
    isDone = true;
  });
  preempt.settle();
  expect(isDone).toBe(false);
  state.missingPages = 0;
  preempt.settle();
  expect(isDone).toBe(true);
  vi.advanceTimersByTime(10 * MINUTE_MS);
  expect(failures).toEqual([]);
});
