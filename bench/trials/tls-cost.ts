import { createPaths } from '../../test/support/lab/netns.ts';
import { alternate, stateComparison, type Trial } from '../harness.ts';
import { measure, subject, throughPagelane } from './migrations.ts';

/** TLS against clear text, all else equal. */
export const tlsCost: Trial = {
  name: 'tls-cost',
  question: 'What does TLS cost on two 1 Gb/s paths with incompressible memory?',
  async run({ isSmoke, pairs }) {
    await using network = await createPaths({ count: 2, rateMbit: [1000] });
    const what = subject('random', isSmoke);
    const comparison = await alternate(
      pairs,
      () => measure(what, network, throughPagelane(network, { security: 'key' })),
      () => measure(what, network, throughPagelane(network, { security: 'insecure' })),
      { warmUp: !isSmoke },
    );
    return stateComparison('--key ÷ --insecure', comparison, ['totalMs', 'downtimeMs', 'wireMB']);
  },
};
