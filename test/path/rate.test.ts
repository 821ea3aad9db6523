import { describe, expect, test } from 'vitest';
import {
  IN_FLIGHT_BYTES_FIRST,
  IN_FLIGHT_BYTES_MIN,
  UNSATURATED_FACTOR,
  UNUSED_DOUBLING_MS,
} from '../../src/path/limits.ts';
import { RateEstimator, type SendMark } from '../../src/path/rate.ts';

const FRAME = 512 * 1024;

/** A pipe of one rate and delay, kept as full as the estimator wants, or as `mostFrames` allow. */
function drive(
  rate: RateEstimator,
  pipe: { bytesPerSecond: number; rttMs: number },
  run: { fromMs: number; forMs: number; frameBytes?: number; mostFrames?: number },
): { nowMs: number; worstBytes: number } {
  const { frameBytes = FRAME, mostFrames = Number.POSITIVE_INFINITY } = run;
  const flying: { mark: SendMark; ackAtMs: number }[] = [];
  let nowMs = run.fromMs;
  let freeAtMs = nowMs;
  let worstBytes = 0;
  while (nowMs < run.fromMs + run.forMs) {
    const hasRoom = (): boolean =>
      rate.inFlightBytes === 0 || rate.inFlightBytes < rate.limitBytes(nowMs);
    while (flying.length < mostFrames && hasRoom()) {
      freeAtMs = Math.max(freeAtMs, nowMs) + (frameBytes * 1000) / pipe.bytesPerSecond;
      flying.push({ mark: rate.onSent(frameBytes, nowMs), ackAtMs: freeAtMs + pipe.rttMs });
    }
    worstBytes = Math.max(worstBytes, rate.inFlightBytes);
    const { mark, ackAtMs } = flying.shift()!;
    nowMs = ackAtMs;
    rate.onDelivered(mark, nowMs);
    rate.onAcked(mark, nowMs);
  }
  for (const { mark } of flying) rate.onDelivered(mark, nowMs);
  return { nowMs, worstBytes };
}

describe('RateEstimator', () => {
  test.each([
    { bytesPerSecond: 12_500_000, rttMs: 0.5 },
    { bytesPerSecond: 125_000_000, rttMs: 0.2 },
    { bytesPerSecond: 125_000_000, rttMs: 40 },
    { bytesPerSecond: 1_250_000_000, rttMs: 5 },
    { bytesPerSecond: 125_000, rttMs: 100 },
    { bytesPerSecond: 25_000_000, rttMs: 300 },
  ])('finds $bytesPerSecond bytes/s at $rttMs ms', (pipe) => {
    const rate = new RateEstimator();
    drive(rate, pipe, { fromMs: 1000, forMs: 8000 });
    expect(rate.bytesPerSecond).toBeGreaterThan(0.9 * pipe.bytesPerSecond);
    expect(rate.bytesPerSecond).toBeLessThan(1.1 * pipe.bytesPerSecond);
    expect(rate.minRttMs).toBeLessThan(pipe.rttMs + (FRAME * 1100) / pipe.bytesPerSecond);
  });

  test('keeps queues short: 100 Mb/s needs no more than three frames in flight', () => {
    const rate = new RateEstimator();
    const pipe = { bytesPerSecond: 12_500_000, rttMs: 0.5 };
    const { nowMs } = drive(rate, pipe, { fromMs: 0, forMs: 3000 });
    const { worstBytes } = drive(rate, pipe, { fromMs: nowMs, forMs: 3000 });
    expect(worstBytes).toBeLessThanOrEqual(3 * FRAME);
  });

  test('keeps queues short: 1 Gb/s needs a few MiB in flight', () => {
    const rate = new RateEstimator();
    const pipe = { bytesPerSecond: 125_000_000, rttMs: 0.5 };
    const { nowMs } = drive(rate, pipe, { fromMs: 0, forMs: 3000 });
    const { worstBytes } = drive(rate, pipe, { fromMs: nowMs, forMs: 20_000 });
    expect(worstBytes).toBeLessThanOrEqual(6 * 1024 * 1024);
  });

  test('follows a rate that falls', () => {
    const rate = new RateEstimator();
    const { nowMs } = drive(
      rate,
      { bytesPerSecond: 100_000_000, rttMs: 1 },
      { fromMs: 0, forMs: 3000 },
    );
    drive(rate, { bytesPerSecond: 10_000_000, rttMs: 1 }, { fromMs: nowMs, forMs: 4000 });
    expect(rate.bytesPerSecond).toBeLessThan(12_000_000);
  });

  test('follows a round trip that grows, though it is never idle', () => {
    const rate = new RateEstimator();
    const fast = { bytesPerSecond: 125_000_000, rttMs: 1 };
    const { nowMs } = drive(rate, fast, { fromMs: 0, forMs: 3000 });
    drive(rate, { ...fast, rttMs: 100 }, { fromMs: nowMs, forMs: 15_000 });
    expect(rate.minRttMs).toBeGreaterThan(90);
    expect(rate.bytesPerSecond).toBeGreaterThan(100_000_000);
  });

  test('does not take an idle sender for a slow path', () => {
    const rate = new RateEstimator();
    const pipe = { bytesPerSecond: 100_000_000, rttMs: 1 };
    let { nowMs } = drive(rate, pipe, { fromMs: 0, forMs: 3000 });
    for (let round = 0; round < 100; round++) {
      const mark = rate.onSent(1000, nowMs);
      rate.onIdle();
      nowMs += 50;
      rate.onDelivered(mark, nowMs);
      rate.onAcked(mark, nowMs);
    }
    expect(rate.bytesPerSecond).toBeGreaterThan(90_000_000);
  });

  test('learns nothing of the rate from a few bytes', () => {
    const rate = new RateEstimator();
    const mark = rate.onSent(1000, 0);
    rate.onDelivered(mark, 10);
    rate.onAcked(mark, 10);
    expect(rate.bytesPerSecond).toBe(0);
    expect(rate.smoothedRttMs).toBe(10);
  });

  test('smooths the round trip as RFC 9002 says', () => {
    const rate = new RateEstimator();
    rate.onRoundTrip(80, 0, { wasAlone: true });
    rate.onRoundTrip(160, 1, { wasAlone: true });
    expect(rate.smoothedRttMs).toBe(90);
    expect(rate.minRttMs).toBe(80);
  });

  test('limitBytes() begins with a fixed amount, and has a least one', () => {
    const rate = new RateEstimator();
    expect(rate.limitBytes(0)).toBe(IN_FLIGHT_BYTES_FIRST);
    drive(rate, { bytesPerSecond: 10_000, rttMs: 1 }, { fromMs: 0, forMs: 3000, frameBytes: 5000 });
    expect(rate.limitBytes(3000)).toBe(IN_FLIGHT_BYTES_MIN);
  });

  test('expects more of a path that never queued, or was not used for long', () => {
    const rate = new RateEstimator();
    const pipe = { bytesPerSecond: 1_000_000, rttMs: 10 };
    // As a handshake tells it: without the time that a frame takes.
    rate.onRoundTrip(pipe.rttMs, 0, { wasAlone: true });
    let { nowMs } = drive(rate, pipe, { fromMs: 0, forMs: 10, mostFrames: 1 });
    const measured = rate.bytesPerSecond;
    expect(rate.isSaturated).toBe(false);
    expect(rate.expectedBytesPerSecond(nowMs)).toBe(UNSATURATED_FACTOR * measured);
    ({ nowMs } = drive(rate, pipe, { fromMs: nowMs, forMs: 5000 }));
    expect(rate.isSaturated).toBe(true);
    expect(rate.expectedBytesPerSecond(nowMs)).toBe(rate.bytesPerSecond);
    const later = nowMs + 2 * UNUSED_DOUBLING_MS;
    expect(rate.expectedBytesPerSecond(later)).toBe(4 * rate.bytesPerSecond);
  });
});
