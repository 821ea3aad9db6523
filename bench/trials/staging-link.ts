import { fileURLToPath } from 'node:url';
import { createPaths } from '../../test/support/lab/netns.ts';
import { run } from '../../test/support/lab/processes.ts';
import { RedisServer } from '../../test/support/redis.ts';
import { alternate, type Figures, stateComparison, type Trial } from '../harness.ts';

/* Chosen by us */
const DELAY_MS = 0.5;
const PORT = 6379;
const RUN_MS = 2000;
const SMOKE_RUN_MS = 200;
const CARRY = fileURLToPath(new URL('../support/staging-carry.js', import.meta.url));

/** What batches bring over a link that takes time: the published system's factor is 20. */
export const stagingLink: Trial = {
  name: 'staging-link',
  question: 'How much faster are extents than a page at a time, 0.5 ms away?',
  async run({ isSmoke, pairs }) {
    await using network = await createPaths({ count: 1, delayMs: [DELAY_MS] });
    const words = ['--port', `${PORT}`, '--bind', '0.0.0.0', '--protected-mode', 'no'];
    await using server = await RedisServer.start(words, { namespace: network.destination });
    const address = `redis://${network.paths[0]!.destinationAddress}:${PORT}`;
    const runMs = isSmoke ? SMOKE_RUN_MS : RUN_MS;
    const carry = async (mode: 'extents' | 'pages'): Promise<Figures> => {
      await server.admin.flushall();
      const command = [process.execPath, CARRY, address, mode, `${runMs}`];
      const { stdout } = await run(command, {
        namespace: network.source,
        timeoutMs: 10 * runMs + 10_000,
      });
      return JSON.parse(stdout) as Figures;
    };
    const comparison = await alternate(
      pairs,
      () => carry('extents'),
      () => carry('pages'),
      { warmUp: !isSmoke },
    );
    return stateComparison('extents : a page at a time', comparison, ['putMBs', 'getMBs']);
  },
};
