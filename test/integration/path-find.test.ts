// Requires: QEMU 9.0 or newer, root for namespaces.
import { expect, test } from 'vitest';
import { createPaths } from '../support/lab/netns.ts';
import { migrateRunning } from './support.ts';

const WORKLOAD = { fill: 64, rate: 1000, content: 'random' } as const;
const TO = ['--to', '10.77.1.2:7700'];

/** Which of the lab's paths were used, and which were closed on purpose; by their number. */
function pathsOf(paths: readonly { remote: string; wireBytes: number; isLost: boolean }[]) {
  return paths
    .filter(({ wireBytes }) => wireBytes > 1e6)
    .map(
      ({ remote, isLost }) => `${/^10\.77\.(\d)\.2:7700$/.exec(remote)?.[1]}${isLost ? '!' : ''}`,
    )
    .sort();
}

test.each([
  { what: 'each interface', words: ['--path', 'auto'], used: ['1', '2', '3'] },
  {
    what: 'networks, beside an address',
    words: ['--path', '10.77.1.1@10.77.1.2:7700', '--path', '10.77.3.0/24'],
    used: ['1', '3'],
  },
])(
  'paths are found: $what',
  async ({ words, used }) => {
    await using network = await createPaths({ count: 3, rateMbit: [200] });
    const isWithTo = words.includes('auto');
    const { source } = await migrateRunning(
      { network, codec: 'none', pathWords: isWithTo ? [...TO, ...words] : words },
      { workload: WORKLOAD },
    );
    expect(pathsOf(source.paths)).toEqual(used);
  },
  120_000,
);

test('only those in the network are used, at most as fast as they may be', async () => {
  await using network = await createPaths({ count: 3, rateMbit: [1000] });
  const words = ['--path', '10.77.2.0/24,max=160mbit', '--path', '10.77.3.0/24,max=80mbit'];
  const { source } = await migrateRunning(
    { network, codec: 'none', pathWords: [...TO, ...words] },
    { workload: WORKLOAD, settings: { parameters: { 'downtime-limit': 1000 } } },
  );
  // The first path is there to hear of the others, and is closed when one of them is open.
  const [first, ...others] = source.paths;
  expect(first).toMatchObject({ remote: '10.77.1.2:7700', isLost: false });
  expect(first!.wireBytes).toBeLessThan(64e6);
  expect(others.map(({ remote }) => remote).sort()).toEqual(['10.77.2.2:7700', '10.77.3.2:7700']);
  const [faster, slower] = ['10.77.2.2:7700', '10.77.3.2:7700'].map(
    (remote) => others.find((path) => path.remote === remote)!.wireBytes,
  );
  // Nobody is faster than he may be, whatever the machine does meanwhile.
  const seconds = source.durationMs / 1000;
  expect(faster).toBeLessThan(20e6 * seconds + 2e6);
  expect(slower).toBeLessThan(10e6 * seconds + 2e6);
}, 120_000);
