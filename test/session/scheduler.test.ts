import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { LATENESS_MS_MIN, STALLED_MS, TRIAL_BYTES } from '../../src/session/limits.ts';
import { type Candidate, choosePath } from '../../src/session/scheduler.ts';

interface Facts {
  readonly bytesPerSecond: number;
  readonly minRttMs?: number | undefined;
  readonly inFlightBytes?: number;
  readonly hasRoom?: boolean;
  readonly silentMs?: number;
  readonly isDoubted?: boolean;
  readonly isDraining?: boolean;
}

function path({ hasRoom = true, silentMs = 0, ...facts }: Facts): Candidate {
  const { isDoubted = false, isDraining = false } = facts;
  const { bytesPerSecond, minRttMs = 1, inFlightBytes = 0 } = facts;
  const rate = { inFlightBytes, minRttMs };
  const expectedBytesPerSecond = () => bytesPerSecond;
  const state = { silentMs, isDoubted, isDraining };
  return { ...state, rate, expectedBytesPerSecond, hasRoom };
}

const MB = 1_000_000;
const LOAD = { frameBytes: 100_000, backlogBytes: 0, latenessMs: LATENESS_MS_MIN, nowMs: 0 };

function choose(facts: readonly Facts[], load: Partial<typeof LOAD> = {}): number {
  return choosePath(facts.map(path), { ...LOAD, ...load });
}

describe('choosePath()', () => {
  test('takes no path where there is none, or none with room', () => {
    expect(choose([])).toBe(-1);
    expect(choose([{ bytesPerSecond: MB, hasRoom: false }])).toBe(-1);
  });

  test('takes the only path, whatever it is like', () => {
    expect(choose([{ bytesPerSecond: 0, inFlightBytes: 2 * TRIAL_BYTES }])).toBe(0);
    expect(choose([{ bytesPerSecond: 1, silentMs: STALLED_MS, minRttMs: 9000 }])).toBe(0);
  });

  test('takes, of paths of which nothing is known, the emptier and nearer one', () => {
    const unknown = { bytesPerSecond: 0, inFlightBytes: 1000, minRttMs: 2 };
    expect(choose([unknown, { ...unknown, inFlightBytes: 0 }])).toBe(1);
    expect(choose([unknown, { ...unknown, minRttMs: 1 }])).toBe(1);
    expect(choose([unknown, unknown])).toBe(0);
  });

  test('takes the path that brings the frame first: by rate, queue and distance', () => {
    expect(choose([{ bytesPerSecond: MB }, { bytesPerSecond: 2 * MB }])).toBe(1);
    const busy = { bytesPerSecond: 2 * MB, inFlightBytes: 500_000 };
    expect(choose([{ bytesPerSecond: MB }, busy])).toBe(0);
    const far = { bytesPerSecond: 2 * MB, minRttMs: 500 };
    expect(choose([{ bytesPerSecond: MB }, far])).toBe(0);
  });

  test('tries a path of which nothing is known, with one large frame', () => {
    const known = { bytesPerSecond: 10 * MB };
    expect(choose([known, { bytesPerSecond: 0 }])).toBe(1);
    expect(choose([known, { bytesPerSecond: 0, inFlightBytes: TRIAL_BYTES - 1 }])).toBe(1);
    expect(choose([known, { bytesPerSecond: 0, inFlightBytes: TRIAL_BYTES }])).toBe(0);
  });

  test('waits for a full path that is much faster, if little is left', () => {
    const fast = { bytesPerSecond: 100 * MB, inFlightBytes: MB, hasRoom: false };
    const slow = { bytesPerSecond: MB / 10 };
    expect(choose([fast, slow])).toBe(-1);
    expect(choose([{ ...fast, silentMs: STALLED_MS }, slow])).toBe(1);
  });

  test('uses a slow path while there is a backlog that takes as long', () => {
    const fast = { bytesPerSecond: 10 * MB, inFlightBytes: MB, hasRoom: false };
    const slow = { bytesPerSecond: MB };
    expect(choose([fast, slow], { frameBytes: 600_000 })).toBe(-1);
    expect(choose([fast, slow], { frameBytes: 600_000, backlogBytes: 10 * MB })).toBe(1);
  });

  test('never waits where no other path is at work', () => {
    const facts = fc.record({
      bytesPerSecond: fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 10 ** 10 })),
      minRttMs: fc.option(fc.integer({ min: 0, max: 5000 }), { nil: undefined }),
      inFlightBytes: fc.nat(10 ** 8),
      hasRoom: fc.boolean(),
      silentMs: fc.nat(2 * STALLED_MS),
    });
    const loads = fc.record({
      frameBytes: fc.integer({ min: 32, max: 2 * MB }),
      backlogBytes: fc.nat(10 ** 8),
    });
    fc.assert(
      fc.property(fc.array(facts, { maxLength: 16 }), loads, (all, load) => {
        const chosen = choose(all, load);
        if (chosen >= 0) {
          expect(all[chosen]!.hasRoom).toBe(true);
          return;
        }
        // A frame that waits is waited for: there is no room at all, or a path that is heard has
        // something in flight, whose ack will ask again.
        const isHeard = ({ silentMs }: Facts): boolean => (silentMs ?? 0) < STALLED_MS;
        const others = all.filter(
          (one) => !one.hasRoom || (one.bytesPerSecond === 0 && one.inFlightBytes >= TRIAL_BYTES),
        );
        const isWaiting = others.some(isHeard) || all.every(({ hasRoom }) => !hasRoom);
        const isTried = all.every((one) => !one.hasRoom || others.includes(one));
        expect(isWaiting || isTried).toBe(true);
      }),
      { numRuns: 1000 },
    );
  });
});
