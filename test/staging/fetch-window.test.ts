import { expect, test } from 'vitest';
import { FetchWindow } from '../../src/staging/fetch-window.ts';

/** Fetches over a link that carries one extent after another, a round trip away. */
function simulate({ extentMs, rttMs }: { extentMs: number; rttMs: number }): {
  readonly share: number;
  readonly lastWaitMs: number;
} {
  const window = new FetchWindow(64);
  const onTheirWay: { from: number; here: number }[] = [];
  let nowMs = 0;
  let linkFreeMs = 0;
  let arrived = 0;
  let busyFromMs = 0;
  let lastWaitMs = 0;
  while (arrived < 4000) {
    while (onTheirWay.length < window.size) {
      linkFreeMs = Math.max(linkFreeMs, nowMs + rttMs) + extentMs;
      onTheirWay.push({ from: nowMs, here: linkFreeMs });
    }
    const next = onTheirWay.shift()!;
    nowMs = next.here;
    lastWaitMs = nowMs - next.from;
    window.arrived(next.from, nowMs);
    arrived++;
    if (arrived === 1000) busyFromMs = nowMs;
  }
  return { share: (3000 * extentMs) / (nowMs - busyFromMs), lastWaitMs };
}

test.each([
  { extentMs: 5, rttMs: 0.3 },
  { extentMs: 5, rttMs: 30 },
  { extentMs: 1, rttMs: 1 },
  { extentMs: 0.1, rttMs: 0.2 },
  { extentMs: 50, rttMs: 1 },
])('a link of $extentMs ms an extent is full, and nothing waits long: $rttMs ms away', (link) => {
  const { share, lastWaitMs } = simulate(link);
  expect(share).toBeGreaterThan(0.9);
  const enough = Math.max(25, 2 * (link.rttMs + link.extentMs));
  expect(lastWaitMs).toBeLessThanOrEqual(enough + 2 * link.extentMs);
});

test('there are two at least, and no more than there is room for', () => {
  const slow = new FetchWindow(8);
  slow.arrived(0, 1000);
  expect(slow.size).toBe(2);
  const fast = new FetchWindow(8);
  for (let at = 0; at <= 1000; at++) fast.arrived(at / 10, at / 10 + 0.5);
  expect(fast.size).toBe(8);
});
