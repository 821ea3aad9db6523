import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { PACING_BURST_MS } from '../../src/path/limits.ts';
import { Pacer } from '../../src/path/pacing.ts';

/** Longest frame: the largest payload and its header. */
const FRAME_BYTES_MAX = 2 ** 21 + 32;

/** Less than a byte is what rounding leaves of a debt; a few roundings come together. */
const ROUNDING_BYTES = 2;

/** From a modem to 100 Gb/s. */
const rates = fc.double({ min: 1000, max: 12.5e9, noNaN: true });
/** A machine that has run for up to a day. */
const times = fc.double({ min: 0, max: 86_400_000, noNaN: true });
const frames = fc.integer({ min: 32, max: FRAME_BYTES_MAX });
/** Of these a burst at the highest rate is not so many. */
const longFrames = fc.integer({ min: 32 * 1024, max: FRAME_BYTES_MAX });

interface Passed {
  readonly atMs: number;
  readonly bytes: number;
}

/**
 * Lets frames pass as soon as the pacer allows, after a pause of its own before each.
 *
 * @param lateMs How much later than it has to each waits.
 */
function drive(
  pacer: Pacer,
  fromMs: number,
  steps: readonly { readonly pauseMs: number; readonly bytes: number; readonly lateMs?: number }[],
): Passed[] {
  let nowMs = fromMs;
  return steps.map(({ pauseMs, bytes, lateMs = 0 }) => {
    nowMs += pauseMs;
    const waitMs = pacer.waitMs(nowMs);
    if (waitMs > 0) nowMs += waitMs + lateMs;
    expect(pacer.waitMs(nowMs)).toBe(0);
    pacer.pass(bytes, nowMs);
    return { atMs: nowMs, bytes };
  });
}

function bytesOf(passed: readonly Passed[]): number {
  return passed.reduce((sum, { bytes }) => sum + bytes, 0);
}

describe('Pacer', () => {
  test('lets never pass more than the rate, one burst and one frame, in any span', () => {
    const pauses = fc.oneof(
      fc.constant(0),
      fc.double({ min: 0, max: 3 * PACING_BURST_MS, noNaN: true }),
      fc.constant(60_000),
    );
    const steps = fc.array(fc.record({ pauseMs: pauses, bytes: frames }), { maxLength: 40 });
    fc.assert(
      fc.property(rates, times, steps, (bytesPerSecond, fromMs, all) => {
        const passed = drive(new Pacer(bytesPerSecond, fromMs), fromMs, all);
        for (let first = 0; first < passed.length; first++) {
          let bytes = 0;
          for (let last = first; last < passed.length; last++) {
            const spanMs = passed[last]!.atMs - passed[first]!.atMs;
            bytes += passed[last]!.bytes;
            const mostMs = spanMs + PACING_BURST_MS;
            const most = (bytesPerSecond * mostMs) / 1000 + passed[last]!.bytes;
            expect(bytes).toBeLessThanOrEqual(most + ROUNDING_BYTES * (last - first + 1));
          }
        }
      }),
    );
  });

  test('lets exactly the rate pass in the long run, although timers are late', () => {
    // A late timer is made up for, as long as it is not later than a burst.
    const lateness = fc.double({ min: 0, max: PACING_BURST_MS, noNaN: true });
    const steps = fc.array(
      fc.record({ pauseMs: fc.constant(0), bytes: frames, lateMs: lateness }),
      { minLength: 50, maxLength: 200 },
    );
    fc.assert(
      fc.property(rates, times, steps, (bytesPerSecond, fromMs, all) => {
        const passed = drive(new Pacer(bytesPerSecond, fromMs), fromMs, all);
        const { atMs } = passed.at(-1)!;
        const expected = (bytesPerSecond * (atMs - fromMs)) / 1000;
        const before = bytesOf(passed.slice(0, -1));
        const burst = (bytesPerSecond * PACING_BURST_MS) / 1000;
        expect(before).toBeLessThanOrEqual(expected + ROUNDING_BYTES * passed.length);
        expect(before).toBeGreaterThanOrEqual(expected - burst - ROUNDING_BYTES * passed.length);
      }),
    );
  });

  test('tells how long to wait: exactly so long, and not less', () => {
    fc.assert(
      fc.property(rates, times, frames, (bytesPerSecond, fromMs, bytes) => {
        const pacer = new Pacer(bytesPerSecond, fromMs);
        pacer.pass(bytes, fromMs);
        const waitMs = pacer.waitMs(fromMs);
        expect(waitMs).toBeCloseTo((bytes * 1000) / bytesPerSecond, 6);
        // All but two bytes of the debt are paid: it is still one.
        const almostMs = ((bytes - ROUNDING_BYTES) * 1000) / bytesPerSecond;
        const tooEarly = new Pacer(bytesPerSecond, 0);
        tooEarly.pass(bytes, 0);
        expect(tooEarly.waitMs(almostMs)).toBeGreaterThan(0);
        expect(pacer.waitMs(fromMs + waitMs)).toBe(0);
      }),
    );
  });

  test('never waits for ever by rounding, however late it is and however small the steps', () => {
    const steps = fc.array(fc.double({ min: 0, max: 0.999, noNaN: true }), { maxLength: 50 });
    fc.assert(
      fc.property(rates, times, frames, steps, (bytesPerSecond, fromMs, bytes, parts) => {
        const pacer = new Pacer(bytesPerSecond, fromMs);
        pacer.pass(bytes, fromMs);
        let nowMs = fromMs;
        // Who asks in between, again and again, is not told to wait for longer by that.
        for (const part of parts) nowMs += part * pacer.waitMs(nowMs);
        nowMs += pacer.waitMs(nowMs);
        expect(pacer.waitMs(nowMs)).toBe(0);
        expect(nowMs - fromMs).toBeLessThanOrEqual((bytes * 1000) / bytesPerSecond + 1e-3);
      }),
    );
  });

  test('makes up for a pause with one burst, not for all of it', () => {
    fc.assert(
      fc.property(rates, times, longFrames, (bytesPerSecond, fromMs, bytes) => {
        const pacer = new Pacer(bytesPerSecond, fromMs);
        const nowMs = fromMs + 1000 * PACING_BURST_MS;
        const burst = (bytesPerSecond * PACING_BURST_MS) / 1000;
        let passedBytes = 0;
        const passesMax = Math.ceil(burst / bytes) + 2;
        for (let count = 0; count < passesMax && pacer.waitMs(nowMs) === 0; count++) {
          pacer.pass(bytes, nowMs);
          passedBytes += bytes;
        }
        expect(pacer.waitMs(nowMs)).toBeGreaterThan(0);
        expect(passedBytes).toBeGreaterThan(burst - ROUNDING_BYTES);
        expect(passedBytes).toBeLessThanOrEqual(burst + bytes + ROUNDING_BYTES);
      }),
    );
  });

  test('lets a frame of any length pass at once when nothing was sent before', () => {
    const pacer = new Pacer(1000, 5);
    expect(pacer.waitMs(5)).toBe(0);
    pacer.pass(FRAME_BYTES_MAX, 5);
    expect(pacer.waitMs(5)).toBe(FRAME_BYTES_MAX);
    expect(pacer.bytesPerSecond).toBe(1000);
  });
});
