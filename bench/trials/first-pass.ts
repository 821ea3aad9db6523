import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import type { GuestResult } from '../../src/index.ts';
import { repositoryRoot } from '../../test/support/lab/binaries.ts';
import { formatSpread, spread, type Trial } from '../harness.ts';

/** What the source alone takes, on one processor, without a network and without compression. */
export const firstPass: Trial = {
  name: 'first-pass',
  question: 'How fast is the first pass over half-zero memory, to nowhere, on one processor?',
  async run({ isSmoke, pairs }) {
    const rates: number[] = [];
    const cpu: number[] = [];
    for (let index = 0; index < (isSmoke ? 1 : pairs); index++) {
      const { result } = run(isSmoke ? '64MiB' : '2GiB');
      const [first] = result.roundFacts;
      rates.push(result.memoryBytes / first!.durationMs / 1e6);
      cpu.push((result.cpuSeconds * 1e9) / result.memoryBytes);
    }
    return [
      `first pass ${formatSpread(spread(rates))} GB/s of memory (target ≥ 2); ` +
        `${formatSpread(spread(cpu))} CPU-s per GB`,
    ];
  },
};

function run(size: string): { readonly result: GuestResult } {
  const command = [join(repositoryRoot, 'dist/cli/main.js'), 'bench', '--paths', 'null:'];
  const what = ['--size', size, '--codec', 'none', '--threads', '1', '--dirty-rate', '0'];
  const args = ['-c', '0', process.execPath, ...command, ...what, '--output', 'json'];
  return JSON.parse(execFileSync('taskset', args, { encoding: 'utf8' }));
}
