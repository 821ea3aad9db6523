import { measureIperf } from '../../test/support/lab/iperf.ts';
import { createPaths, type LabNetwork } from '../../test/support/lab/netns.ts';
import {
  alternate,
  type Comparison,
  type Figures,
  formatSpread,
  spread,
  stateComparison,
  type Trial,
} from '../harness.ts';
import { plainRates, sumOf } from '../support/plain-rates.ts';
import { type Transfer, transfer } from '../support/transfer.ts';

/* Chosen by us */
const RATE_MBIT = 200;
const PROBES = 3;
const INTERVAL_MS = 100;
/** What long round trips need: twice what the slowest path has under way, and room for more. */
const TCP_BUFFER_BYTES = 64 * 1024 * 1024;

interface Setting {
  /** One way, of each path; milliseconds. */
  readonly delayMs: readonly number[];
  readonly seconds: number;
}

const SETTINGS: readonly Setting[] = [
  { delayMs: [50, 50], seconds: 12 },
  { delayMs: [0, 50], seconds: 12 },
  { delayMs: [150, 150], seconds: 20 },
  { delayMs: [0, 150], seconds: 20 },
];

/** Paths that take long. */
export const transportDelay: Trial = {
  name: 'transport-delay',
  question: 'How much of the sum of its paths does a session use when they take 50 or 150 ms?',
  async run({ isSmoke, pairs }) {
    const lines = [await describeWire(isSmoke)];
    await using plain = await createPaths({ count: 2, rateMbit: [RATE_MBIT] });
    for (const setting of isSmoke ? [{ delayMs: [0, 20], seconds: 1 }] : SETTINGS) {
      lines.push(...(await compare(setting, { pairs, isSmoke, plain })));
    }
    return lines;
  },
};

/** What delays, and how fast it is by itself. */
async function describeWire(isSmoke: boolean): Promise<string> {
  await using network = await createPaths({ count: 1, delayMs: [1] });
  const { mbit } = await measureIperf(network, { seconds: isSmoke ? 1 : 3 });
  return (
    `  delayed by test/support/lab/delay.c, two TAP devices, packet by packet; ` +
    `by itself, with 1 ms, it carries ${(mbit / 1000).toFixed(1)} Gb/s`
  );
}

async function compare(
  { delayMs, seconds }: Setting,
  { pairs, isSmoke, plain }: { pairs: number; isSmoke: boolean; plain: LabNetwork },
): Promise<string[]> {
  await using network = await createPaths({
    count: delayMs.length,
    rateMbit: [RATE_MBIT],
    delayMs,
    tcpBufferBytes: TCP_BUFFER_BYTES,
  });
  const delayed = sumOf(await plainRates(network, seconds));
  const { ours, peers } = await alternate(
    pairs,
    async () => figuresOf(await transfer(network, { seconds, probes: PROBES })),
    async () => ({
      sum: sumOf(await plainRates(plain, isSmoke ? 1 : 2)),
      delayed,
      ...(!isSmoke && { mptcp: (await measureIperf(network, { seconds, isMptcp: true })).mbit }),
    }),
    { warmUp: false },
  );
  const against = (figure: string): Comparison => ({
    ours,
    peers: peers.map((each) => ({ mbit: each[figure]!, laterMbit: each[figure]! })),
  });
  const of = (name: string): string => formatSpread(spread(ours.map((each) => each[name]!)), 1);
  const title = `2 × ${RATE_MBIT} Mb/s, ${delayMs.join(' and ')} ms one way, ${seconds} s`;
  return [
    `${title}: shortest round trips ${of('rtt1Ms')} ms and ${of('rtt2Ms')} ms`,
    ...stateComparison(
      `${title} ÷ the sum of iperf3 on each path alone without delay (target ≥ 0.9)`,
      against('sum'),
      ['mbit', 'laterMbit'],
    ),
    ...stateComparison(
      `${title} ÷ the sum of iperf3 on each path alone with the delay, for as long`,
      against('delayed'),
      ['mbit'],
    ),
    ...(isSmoke ? [] : stateComparison(`${title} ÷ iperf3 over MPTCP`, against('mptcp'), ['mbit'])),
  ];
}

/** Goodput over all, and in the second half of the time. */
function figuresOf(done: Transfer): Figures {
  const intervals = done.intervals(INTERVAL_MS);
  const later = intervals.slice(intervals.length >> 1);
  const [rtt1Ms, rtt2Ms] = done.sender.rttMs;
  return {
    mbit: done.mbit,
    laterMbit: sumOf(later.map(({ mbit }) => mbit)) / later.length,
    rtt1Ms: rtt1Ms!,
    rtt2Ms: rtt2Ms!,
  };
}
