import { migrateMptcp, migrateMultifd } from '../../test/support/lab/migrate.ts';
import { createPaths } from '../../test/support/lab/netns.ts';
import { alternate, stateComparison, type Trial, type TrialOptions } from '../harness.ts';
import { knownBandwidth, measure, subject, throughPagelane } from './migrations.ts';

const HOST = '10.77.1.2';
const FIGURES = ['totalMs', 'downtimeMs', 'wireMB'];

/** Two shaped paths against QEMU over MPTCP on the same paths. */
export const twoPaths: Trial = {
  name: 'two-paths',
  question: 'How does pagelane on two paths compare with QEMU over MPTCP on the same ones?',
  async run(options) {
    return [
      ...(await compareIncompressible(options, 1000)),
      ...(await compareStructured(options, 1000)),
      // Slow enough for the links, and not two processors for two hosts, to be the limit.
      ...(await compareStructured(options, 250)),
    ];
  },
};

async function compareIncompressible(
  { isSmoke, pairs }: TrialOptions,
  rateMbit: number,
): Promise<readonly string[]> {
  await using network = await createPaths({ count: 2, rateMbit: [rateMbit] });
  const random = subject('random', isSmoke);
  const comparison = await alternate(
    pairs,
    () => measure(random, network, throughPagelane(network)),
    () =>
      measure(random, network, (pair, settings) => migrateMptcp(pair, { ...settings, host: HOST })),
    { warmUp: !isSmoke },
  );
  const title = `two paths of ${rateMbit} Mb/s, incompressible memory ÷ tcp: over MPTCP`;
  return stateComparison(title, comparison, FIGURES);
}

async function compareStructured(
  { isSmoke, pairs }: TrialOptions,
  rateMbit: number,
): Promise<readonly string[]> {
  await using network = await createPaths({ count: 2, rateMbit: [rateMbit] });
  const structured = subject('structured', isSmoke);
  const parameters = knownBandwidth(network, rateMbit);
  const peer = () =>
    measure(structured, network, (pair, settings) =>
      migrateMultifd(pair, { ...settings, host: HOST, isMptcp: true }),
    );
  const comparison = await alternate(
    pairs,
    () => measure(structured, network, throughPagelane(network)),
    peer,
    { warmUp: !isSmoke },
  );
  const informed = await alternate(
    pairs,
    () => measure(structured, network, throughPagelane(network, { parameters })),
    peer,
    { warmUp: false },
  );
  const title = `two paths of ${rateMbit} Mb/s, structured memory ÷ multifd zstd over MPTCP`;
  return [
    ...stateComparison(title, comparison, FIGURES),
    ...stateComparison(`${title}, with avail-switchover-bandwidth`, informed, FIGURES),
  ];
}
