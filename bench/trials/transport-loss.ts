import { setTimeout as sleep } from 'node:timers/promises';
import { type Interval, measureIperf, traceMptcp } from '../../test/support/lab/iperf.ts';
import { createPaths, type LabNetwork } from '../../test/support/lab/netns.ts';
import {
  alternate,
  type Figures,
  formatSpread,
  spread,
  stateComparison,
  type Trial,
} from '../harness.ts';
import { missingMs, monotonicMs, outageMs } from '../support/timeline.ts';
import { transfer } from '../support/transfer.ts';

/* Chosen by us */
const RATE_MBIT = [200, 100];
const INTERVAL_MS = 100;
/** Small, so that an interval holds many; batches of incompressible pages have up to 512 KiB. */
const MESSAGE_BYTES = 64 * 1024;
/** Less than this part of what the surviving path carries alone is an outage. */
const OUTAGE_PART = 0.9;

interface Times {
  /** From the beginning until the path is lost. */
  readonly beforeMs: number;
  /** From then on, what counts. */
  readonly afterMs: number;
}

const LOSSES = [
  { kind: 'silent', title: 'silent loss of the slower path', target: 0.25 },
  { kind: 'carrier', title: 'loss of carrier of the slower path', target: 0.6 },
] as const;

/** One of two paths dies in the middle of a transfer. */
export const transportLoss: Trial = {
  name: 'transport-loss',
  question: 'How long does less arrive than the surviving path carries when the other one dies?',
  async run({ isSmoke, pairs }) {
    const times = isSmoke ? { beforeMs: 400, afterMs: 500 } : { beforeMs: 2000, afterMs: 3900 };
    const aloneMbit = await measureAlone(isSmoke);
    const lines: string[] = [];
    for (const { kind, title, target } of LOSSES) {
      const comparison = await alternate(
        pairs,
        () => throughSession(kind, times, aloneMbit),
        () => throughMptcp(kind, times, aloneMbit),
        { warmUp: !isSmoke },
      );
      const full = `200 + 100 Mb/s, ${title} ÷ MPTCP (target ≤ ${target})`;
      const missing = spread(comparison.ours.map((each) => each['missingMs']!));
      lines.push(
        ...stateComparison(full, comparison, ['outageMs']),
        `  all that was sent before had arrived after ${formatSpread(missing, 0)} ms`,
      );
    }
    return lines;
  },
};

type LossKind = (typeof LOSSES)[number]['kind'];

/** What the path that survives carries alone. */
async function measureAlone(isSmoke: boolean): Promise<number> {
  await using network = await createPaths({ count: RATE_MBIT.length, rateMbit: RATE_MBIT });
  return (await measureIperf(network, { seconds: isSmoke ? 1 : 5 })).mbit;
}

async function throughSession(kind: LossKind, times: Times, aloneMbit: number): Promise<Figures> {
  // A network for each run: a lost path is not mended.
  await using network = await createPaths({ count: RATE_MBIT.length, rateMbit: RATE_MBIT });
  let lostMs = 0;
  const done = await transfer(network, {
    seconds: secondsOf(times),
    messageBytes: MESSAGE_BYTES,
    during: async (begunMs) => {
      lostMs = await lose(network, kind, begunMs + times.beforeMs);
    },
  });
  return {
    outageMs: outageAfter(lostMs, done.intervals(INTERVAL_MS, lostMs), { aloneMbit, times }),
    missingMs: missingMs(done.sender.sentMs, done.arrivalsMs, lostMs),
  };
}

async function throughMptcp(kind: LossKind, times: Times, aloneMbit: number): Promise<Figures> {
  await using network = await createPaths({ count: RATE_MBIT.length, rateMbit: RATE_MBIT });
  let lostMs = 0;
  const intervals = await traceMptcp(network, {
    seconds: Math.ceil(secondsOf(times)),
    during: async (begunMs) => {
      lostMs = await lose(network, kind, begunMs + times.beforeMs);
    },
  });
  return { outageMs: outageAfter(lostMs, intervals, { aloneMbit, times }) };
}

function secondsOf({ beforeMs, afterMs }: Times): number {
  return (beforeMs + afterMs) / 1000 + 0.1;
}

/** Loses the second path at `atMs`. @returns When it was lost. */
async function lose(network: LabNetwork, kind: LossKind, atMs: number): Promise<number> {
  await sleep(Math.max(0, atMs - monotonicMs()));
  const lostMs = monotonicMs();
  if (kind === 'silent') await network.removeAddress(1);
  else await network.cut(1, kind);
  return lostMs;
}

function outageAfter(
  lostMs: number,
  intervals: readonly Interval[],
  { aloneMbit, times }: { aloneMbit: number; times: Times },
): number {
  const span = { fromMs: lostMs, toMs: lostMs + times.afterMs };
  return outageMs(intervals, { ...span, mbit: OUTAGE_PART * aloneMbit });
}
