import { migrateTcp } from '../../test/support/lab/migrate.ts';
import { createPaths } from '../../test/support/lab/netns.ts';
import { alternate, stateComparison, type Trial } from '../harness.ts';
import { measure, subject, throughPagelane } from './migrations.ts';

const HOST = '10.77.1.2';
const FIGURES = ['totalMs', 'downtimeMs', 'wireMB'];

/** One shaped path of 1 Gb/s against plain QEMU `tcp:`. */
export const onePath: Trial = {
  name: 'one-path',
  question: 'What does pagelane cost, and gain, on one 1 Gb/s path, against plain QEMU tcp:?',
  async run({ isSmoke, pairs }) {
    await using network = await createPaths({ count: 1, rateMbit: [1000] });
    const random = subject('random', isSmoke);
    const structured = subject('structured', isSmoke);
    const plain = (what: typeof random) => () =>
      measure(what, network, (pair, settings) => migrateTcp(pair, { ...settings, host: HOST }));
    const incompressible = await alternate(
      pairs,
      () => measure(random, network, throughPagelane(network, { codec: 'none' })),
      plain(random),
      { warmUp: !isSmoke },
    );
    const compressible = await alternate(
      pairs,
      () => measure(structured, network, throughPagelane(network)),
      plain(structured),
      { warmUp: false },
    );
    return [
      ...stateComparison('incompressible memory, --codec none ÷ tcp:', incompressible, FIGURES),
      ...stateComparison('structured memory, --codec auto ÷ tcp:', compressible, FIGURES),
    ];
  },
};
