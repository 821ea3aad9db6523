import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { Tally } from '../../src/migration/progress.ts';
import { SourceStage } from '../../src/migration/source-stage.ts';
import type { Intermediary } from '../../src/staging/intermediary.ts';

const MINUTE_MS = 60_000;

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

test('how long the destination may take does not count while there is no path to it', () => {
  const failures: unknown[] = [];
  let isConnected = false;
  const nothing = (): void => {};
  const stage = new SourceStage(
    {
      ...{ tally: new Tally(), codec: 'auto', threads: 1 },
      ...{ put: nothing, putEnd: nothing, feed: nothing, loaded: nothing, free: nothing },
      isConnected: () => isConnected,
      sendDirect: () => false,
      digest: () => 0n,
      fail: (error) => failures.push(error),
    },
    { intermediaries: [silentIntermediary()] },
  );
  stage.announce();
  vi.advanceTimersByTime(10 * MINUTE_MS);
  expect(failures).toEqual([]);
  isConnected = true;
  vi.advanceTimersByTime(MINUTE_MS);
  const message = expect.stringContaining('the destination and the intermediaries to be ready');
  expect(failures).toEqual([expect.objectContaining({ code: 'ERR_STAGING_TIMEOUT', message })]);
});

/** One that never answers. */
function silentIntermediary(): Intermediary {
  const check = (): Promise<never> => new Promise(() => {});
  return { check, address: { text: 'redis://nowhere' } } as unknown as Intermediary;
}
