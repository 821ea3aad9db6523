import { migrateMultifd } from '../../test/support/lab/migrate.ts';
import { createPaths } from '../../test/support/lab/netns.ts';
import { isChosen, stateComparison, type Trial, type TrialOptions, takeTurns } from '../harness.ts';
import { knownBandwidth, measure, throughPagelane } from './migrations.ts';

const HOST = '10.77.1.2';
const FIGURES = ['totalMs', 'downtimeMs', 'wireMB'];
const PARTS = [
  { kind: 'compile', rateMbit: 200 },
  { kind: 'compile', rateMbit: 1000 },
  { kind: 'redis', rateMbit: 200 },
  { kind: 'redis', rateMbit: 1000 },
] as const;

/** Guests that compile C or serve Redis, against QEMU's multifd with zstd over MPTCP. */
export const realGuests: Trial = {
  name: 'real-guests',
  question: 'How do guests at work (1 GiB) move over two paths, against multifd zstd over MPTCP?',
  async run(options) {
    const lines: string[] = [];
    for (const part of PARTS) {
      if (!isChosen(`${part.kind}-${part.rateMbit}`, options)) continue;
      lines.push(...(await compare(part, options)));
    }
    return lines;
  },
};

async function compare(
  { kind, rateMbit }: (typeof PARTS)[number],
  { pairs, switchoverFactor }: TrialOptions,
): Promise<readonly string[]> {
  await using network = await createPaths({ count: 2, rateMbit: [rateMbit] });
  const parameters = knownBandwidth(network, rateMbit, switchoverFactor);
  const turns = await takeTurns(
    pairs,
    {
      ours: () => measure(kind, network, throughPagelane(network)),
      peer: () =>
        measure(kind, network, (pair, settings) =>
          migrateMultifd(pair, { ...settings, host: HOST, isMptcp: true }),
        ),
      informed: () => measure(kind, network, throughPagelane(network, { parameters })),
    },
    { warmUp: false },
  );
  const title = `two paths of ${rateMbit} Mb/s, ${kind} guest ÷ multifd zstd over MPTCP`;
  const factor = switchoverFactor === 1 ? '' : ` × ${switchoverFactor}`;
  const { ours, peer: peers, informed } = turns;
  return [
    ...stateComparison(title, { ours, peers }, FIGURES),
    ...stateComparison(
      `${title}, with avail-switchover-bandwidth${factor}`,
      { ours: informed, peers },
      FIGURES,
    ),
  ];
}
