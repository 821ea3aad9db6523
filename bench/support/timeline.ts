import type { Interval } from '../../test/support/lab/iperf.ts';

/* What can be read from when bytes arrived. All times are on the machine's monotonic clock. */

/** Now, on the clock that all processes of this machine share; milliseconds. */
export function monotonicMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}

/**
 * Adds up arrivals by intervals of `spanMs` each, from `beginMs` on, the last one whole.
 *
 * @param arrivalsMs When each message arrived, in any order.
 * @param messageBytes Bytes of each message.
 */
export function intervalsOf(
  arrivalsMs: readonly number[],
  messageBytes: number,
  { beginMs, endMs, spanMs }: { beginMs: number; endMs: number; spanMs: number },
): Interval[] {
  const count = Math.floor((endMs - beginMs) / spanMs);
  const counts = new Array<number>(Math.max(0, count)).fill(0);
  for (const arrivalMs of arrivalsMs) {
    const index = Math.floor((arrivalMs - beginMs) / spanMs);
    if (index >= 0 && index < counts.length) counts[index]!++;
  }
  return counts.map((messages, index) => ({
    beginMs: beginMs + index * spanMs,
    endMs: beginMs + (index + 1) * spanMs,
    mbit: (messages * messageBytes * 8) / 1000 / spanMs,
  }));
}

/**
 * How long, from `fromMs` to `toMs`, less than `mbit` arrived: the sum of such intervals, or of
 * their parts in that span.
 */
export function outageMs(
  intervals: readonly Interval[],
  { fromMs, toMs, mbit }: { fromMs: number; toMs: number; mbit: number },
): number {
  let sumMs = 0;
  for (const interval of intervals) {
    if (interval.mbit >= mbit) continue;
    const beginMs = Math.max(interval.beginMs, fromMs);
    sumMs += Math.max(0, Math.min(interval.endMs, toMs) - beginMs);
  }
  return sumMs;
}

/**
 * How long it took from `fromMs` until `mbit` arrived: to the end of the first interval in which,
 * and in the one after it, so much did.
 *
 * @returns Milliseconds; Infinity if it never did.
 */
export function timeToReachMs(
  intervals: readonly Interval[],
  { fromMs, mbit }: { fromMs: number; mbit: number },
): number {
  const later = intervals.filter(({ endMs }) => endMs > fromMs);
  const index = later.findIndex(
    (interval, at) => interval.mbit >= mbit && (later[at + 1]?.mbit ?? 0) >= mbit,
  );
  return index < 0 ? Number.POSITIVE_INFINITY : later[index]!.endMs - fromMs;
}

/**
 * How long after `faultMs` everything had arrived that was sent before it.
 *
 * @param sentMs When each message was sent.
 * @param arrivalsMs When each arrived, in the same order.
 */
export function missingMs(
  sentMs: readonly number[],
  arrivalsMs: readonly number[],
  faultMs: number,
): number {
  let latestMs = faultMs;
  for (const [index, arrivalMs] of arrivalsMs.entries()) {
    if (sentMs[index]! <= faultMs) latestMs = Math.max(latestMs, arrivalMs);
  }
  return latestMs - faultMs;
}
