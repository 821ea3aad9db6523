import { migrateMptcp, migrateMultifd } from '../../test/support/lab/migrate.ts';
import { createPaths } from '../../test/support/lab/netns.ts';
import { alternate, stateComparison, type Trial } from '../harness.ts';
import { measure, subject, throughPagelane } from './migrations.ts';

const HOST = '10.77.1.2';
const FIGURES = ['totalMs', 'downtimeMs', 'wireMB'];

/** Two shaped paths of 1 Gb/s against QEMU over MPTCP on the same paths. */
export const twoPaths: Trial = {
  name: 'two-paths',
  question: 'How does pagelane on two 1 Gb/s paths compare with QEMU over MPTCP on the same ones?',
  async run({ isSmoke, pairs }) {
    await using network = await createPaths({ count: 2, rateMbit: [1000] });
    const random = subject('random', isSmoke);
    const structured = subject('structured', isSmoke);
    const incompressible = await alternate(
      pairs,
      () => measure(random, network, throughPagelane(network)),
      () =>
        measure(random, network, (pair, settings) =>
          migrateMptcp(pair, { ...settings, host: HOST }),
        ),
      { warmUp: !isSmoke },
    );
    const compressible = await alternate(
      pairs,
      () => measure(structured, network, throughPagelane(network)),
      () =>
        measure(structured, network, (pair, settings) =>
          migrateMultifd(pair, { ...settings, host: HOST, isMptcp: true }),
        ),
      { warmUp: false },
    );
    return [
      ...stateComparison('incompressible memory ÷ tcp: over MPTCP', incompressible, FIGURES),
      ...stateComparison('structured memory ÷ multifd zstd over MPTCP', compressible, FIGURES),
    ];
  },
};
