import { measureIperf } from '../../test/support/lab/iperf.ts';
import { createPaths } from '../../test/support/lab/netns.ts';
import { alternate, type Comparison, stateComparison, type Trial } from '../harness.ts';
import { plainRates, sumOf } from '../support/plain-rates.ts';
import { transfer } from '../support/transfer.ts';

/** A set of paths, and what a session should reach on it. */
interface Setting {
  readonly title: string;
  readonly rateMbit: readonly number[];
  /** Target for goodput ÷ the sum of the paths alone. */
  readonly ofSum: number;
  /** Target for goodput ÷ MPTCP; not compared if absent. */
  readonly ofMptcp?: number;
}

const SETTINGS: readonly Setting[] = [
  { title: '400 + 200 Mb/s', rateMbit: [400, 200], ofSum: 0.97, ofMptcp: 1.05 },
  { title: '300 + 300 Mb/s', rateMbit: [300, 300], ofSum: 0.97, ofMptcp: 1.0 },
  { title: '900 + 100 Mb/s', rateMbit: [900, 100], ofSum: 0.97, ofMptcp: 1.15 },
  { title: '4 × 250 Mb/s', rateMbit: new Array<number>(4).fill(250), ofSum: 0.95 },
  { title: '10 × 100 Mb/s', rateMbit: new Array<number>(10).fill(100), ofSum: 0.95 },
];

/** A session over shaped paths, beside each of them alone and beside MPTCP. */
export const transportPaths: Trial = {
  name: 'transport-paths',
  question: 'How much of the sum of its paths does a session use, with TLS, beside MPTCP?',
  async run({ isSmoke, pairs }) {
    const lines: string[] = [];
    const times = isSmoke ? { seconds: 1, aloneSeconds: 1 } : { seconds: 6, aloneSeconds: 2 };
    for (const setting of isSmoke ? SETTINGS.slice(0, 1) : SETTINGS) {
      lines.push(...(await compare(setting, { pairs, isSmoke, ...times })));
    }
    return lines;
  },
};

async function compare(
  { title, rateMbit, ofSum, ofMptcp }: Setting,
  options: { pairs: number; isSmoke: boolean; seconds: number; aloneSeconds: number },
): Promise<string[]> {
  const { pairs, isSmoke, seconds, aloneSeconds } = options;
  await using network = await createPaths({ count: rateMbit.length, rateMbit });
  const comparison = await alternate(
    pairs,
    async () => ({ mbit: (await transfer(network, { seconds })).mbit }),
    async () => ({
      sum: sumOf(await plainRates(network, aloneSeconds)),
      ...(ofMptcp !== undefined && {
        mptcp: (await measureIperf(network, { seconds, isMptcp: true })).mbit,
      }),
    }),
    { warmUp: !isSmoke },
  );
  const against = (figure: string): Comparison => ({
    ours: comparison.ours,
    peers: comparison.peers.map((each) => ({ mbit: each[figure]! })),
  });
  const sumTitle = `${title} ÷ the sum of iperf3 on each path alone (target ≥ ${ofSum})`;
  const lines = stateComparison(sumTitle, against('sum'), ['mbit']);
  if (ofMptcp === undefined) return lines;
  const mptcpTitle = `${title} ÷ iperf3 over MPTCP (target ≥ ${ofMptcp})`;
  return [...lines, ...stateComparison(mptcpTitle, against('mptcp'), ['mbit'])];
}
