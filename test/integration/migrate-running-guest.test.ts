// Requires: QEMU 9.0 or newer, root for namespaces.
import { describe, expect, test } from 'vitest';
import { newestQemu } from '../support/lab/binaries.ts';
import { createPaths } from '../support/lab/netns.ts';
import { migrateRunning } from './support.ts';

const CASES = [
  { qemu: 'unix', hasReturnPath: true, pathCount: 1 },
  { qemu: 'unix', hasReturnPath: true, pathCount: 2 },
  { qemu: 'unix', hasReturnPath: false, pathCount: 2 },
  { qemu: 'exec', hasReturnPath: true, pathCount: 2 },
  { qemu: 'exec', hasReturnPath: false, pathCount: 1 },
] as const;

/** How often each case runs, one after the other; `scripts/soak` asks for more. */
const ROUNDS = Number(process.env['PAGELANE_ROUNDS'] ?? 1);
const ALL = Array.from({ length: ROUNDS }, () => CASES).flat();

describe('a running guest moves and checks its own memory', () => {
  test.each(ALL)(
    'by $qemu, return path $hasReturnPath, paths $pathCount',
    async (each) => {
      await using network = await createPaths({ count: 2, rateMbit: [1000] });
      const { source } = await migrateRunning(
        { network, qemu: each.qemu, pathCount: each.pathCount },
        {
          settings: { capabilities: { 'return-path': each.hasReturnPath } },
          guest: { qemu: newestQemu() },
        },
      );
      expect(source.paths.length).toBe(each.pathCount);
      for (const path of source.paths) expect(path.wireBytes).toBeGreaterThan(0);
      expect(source.fallbacks.some((text) => text.includes('no return path'))).toBe(
        !each.hasReturnPath,
      );
    },
    180_000,
  );

  test('over three connections on loopback, without encryption', async () => {
    const { source } = await migrateRunning({ pathCount: 3, security: 'insecure' });
    expect(source.paths.length).toBe(3);
  }, 180_000);

  test('with XBZRLE records of QEMU, which pass unharmed', async () => {
    await using network = await createPaths({ count: 2, rateMbit: [400] });
    const { source } = await migrateRunning(
      { network },
      {
        workload: { fill: 96, rate: 20_000, content: 'mixed', write: 'words' },
        settings: { capabilities: { xbzrle: true }, parameters: { 'downtime-limit': 100 } },
      },
    );
    expect(source.pages.foreign).toBeGreaterThan(0);
  }, 180_000);
});
