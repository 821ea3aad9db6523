import { migrateMultifd } from '../../test/support/lab/migrate.ts';
import { createPaths } from '../../test/support/lab/netns.ts';
import { alternate, stateComparison, type Trial } from '../harness.ts';
import { knownBandwidth, measure, throughPagelane } from './migrations.ts';

const HOST = '10.77.1.2';
const FIGURES = ['totalMs', 'downtimeMs', 'wireMB'];

/** A guest that compiles C, against QEMU's multifd with zstd over MPTCP. */
export const realGuests: Trial = {
  name: 'real-guests',
  question: 'How does a compiling guest (1 GiB) move over two paths, against multifd zstd?',
  async run({ pairs }) {
    return [
      ...(await compare(pairs, { rateMbit: 1000, isInformed: false })),
      ...(await compare(pairs, { rateMbit: 1000, isInformed: true })),
      ...(await compare(pairs, { rateMbit: 250, isInformed: false })),
    ];
  },
};

async function compare(
  pairs: number,
  { rateMbit, isInformed }: { rateMbit: number; isInformed: boolean },
): Promise<readonly string[]> {
  await using network = await createPaths({ count: 2, rateMbit: [rateMbit] });
  const parameters = isInformed ? knownBandwidth(network, rateMbit) : {};
  const comparison = await alternate(
    pairs,
    () => measure('compile', network, throughPagelane(network, { parameters })),
    () =>
      measure('compile', network, (pair, settings) =>
        migrateMultifd(pair, { ...settings, host: HOST, isMptcp: true }),
      ),
    { warmUp: false },
  );
  const how = isInformed ? ', with avail-switchover-bandwidth' : '';
  const title = `two paths of ${rateMbit} Mb/s, compiling guest ÷ multifd zstd over MPTCP${how}`;
  return stateComparison(title, comparison, FIGURES);
}
