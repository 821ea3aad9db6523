import { setTimeout as sleep } from 'node:timers/promises';
import { traceMptcp } from '../../test/support/lab/iperf.ts';
import { createPaths, type LabNetwork } from '../../test/support/lab/netns.ts';
import {
  alternate,
  type Figures,
  stateComparison,
  type Trial,
  type TrialOptions,
} from '../harness.ts';
import { plainRates, sumOf } from '../support/plain-rates.ts';
import { monotonicMs, timeToReachMs } from '../support/timeline.ts';
import { transfer } from '../support/transfer.ts';

/* Chosen by us */
const INTERVAL_MS = 100;
/** Small, so that an interval holds many. */
const MESSAGE_BYTES = 64 * 1024;
/** The added path is in use when so much of the new sum arrives. */
const REACHED_PART = 0.9;

/** Paths that come in the middle of a transfer, and one that is of no use. */
export const transportLive: Trial = {
  name: 'transport-live',
  question: 'How soon is an added path used to the full, and what does a useless path cost?',
  async run(options) {
    return [...(await addPath(options)), ...(await addUselessPath(options))];
  },
};

interface Times {
  /** From the beginning until the path is added. */
  readonly beforeMs: number;
  /** From then until the end. */
  readonly afterMs: number;
}

async function addPath({ isSmoke, pairs }: TrialOptions): Promise<string[]> {
  const times = isSmoke ? { beforeMs: 400, afterMs: 1000 } : { beforeMs: 2000, afterMs: 3000 };
  await using network = await createPaths({ count: 2, rateMbit: [100, 200] });
  const sumMbit = sumOf(await plainRates(network, isSmoke ? 1 : 3));
  await network.removeSubflows();
  const comparison = await alternate(
    pairs,
    () => addToSession(network, times, sumMbit),
    () => addToMptcp(network, times, sumMbit),
    { warmUp: !isSmoke },
  );
  const part = `${REACHED_PART * 100} % of the sum (${sumMbit.toFixed(0)} Mb/s)`;
  const title = `200 Mb/s added to 100 Mb/s: until ${part} ÷ MPTCP (target ≤ 1000 ms, ≤ 1.0)`;
  return stateComparison(title, comparison, ['reachedMs']);
}

async function addToSession(
  network: LabNetwork,
  { beforeMs, afterMs }: Times,
  sumMbit: number,
): Promise<Figures> {
  const done = await transfer(network, {
    seconds: (beforeMs + afterMs) / 1000,
    messageBytes: MESSAGE_BYTES,
    pathCount: 1,
    addAfterMs: beforeMs,
  });
  const { addedMs, joinedMs } = done.sender;
  if (addedMs === undefined || joinedMs === undefined) throw new Error('No path was added');
  const intervals = done.intervals(INTERVAL_MS, addedMs);
  return {
    reachedMs: timeToReachMs(intervals, { fromMs: addedMs, mbit: REACHED_PART * sumMbit }),
    joinedMs: joinedMs - addedMs,
  };
}

async function addToMptcp(
  network: LabNetwork,
  { beforeMs, afterMs }: Times,
  sumMbit: number,
): Promise<Figures> {
  let addedMs = 0;
  const intervals = await traceMptcp(network, {
    seconds: Math.ceil((beforeMs + afterMs) / 1000),
    during: async (begunMs) => {
      await sleep(Math.max(0, begunMs + beforeMs - monotonicMs()));
      addedMs = monotonicMs();
      await network.addSubflow(1);
    },
  });
  await network.removeSubflows();
  return {
    reachedMs: timeToReachMs(intervals, { fromMs: addedMs, mbit: REACHED_PART * sumMbit }),
  };
}

async function addUselessPath({ isSmoke, pairs }: TrialOptions): Promise<string[]> {
  const bytes = (isSmoke ? 32 : 256) * 1024 * 1024;
  await using network = await createPaths({ count: 3, rateMbit: [200, 200, 1] });
  const run = async (pathCount: number): Promise<Figures> => ({
    totalMs: (await transfer(network, { bytes, pathCount })).durationMs,
  });
  const comparison = await alternate(
    pairs,
    () => run(3),
    () => run(2),
    { warmUp: !isSmoke },
  );
  const title = '200 + 200 + 1 Mb/s ÷ 200 + 200 Mb/s (target ≤ 1.02)';
  return stateComparison(title, comparison, ['totalMs']);
}
