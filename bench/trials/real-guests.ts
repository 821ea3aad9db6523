import { migrateMultifd } from '../../test/support/lab/migrate.ts';
import { createPaths } from '../../test/support/lab/netns.ts';
import { alternate, stateComparison, type Trial } from '../harness.ts';
import { measure, throughPagelane } from './migrations.ts';

const FIGURES = ['totalMs', 'downtimeMs', 'wireMB'];

/** A guest that compiles C, against QEMU's multifd with zstd over MPTCP. */
export const realGuests: Trial = {
  name: 'real-guests',
  question: 'How does a compiling guest (1 GiB) move over two 1 Gb/s paths, against multifd zstd?',
  async run({ pairs }) {
    await using network = await createPaths({ count: 2, rateMbit: [1000] });
    const comparison = await alternate(
      pairs,
      () => measure('compile', network, throughPagelane(network)),
      () =>
        measure('compile', network, (pair, settings) =>
          migrateMultifd(pair, { ...settings, host: '10.77.1.2', isMptcp: true }),
        ),
      { warmUp: false },
    );
    return stateComparison('compiling guest ÷ multifd zstd over MPTCP', comparison, FIGURES);
  },
};
