// Requires: QEMU 9.0 or newer, root for namespaces, iperf3, lz4, zstd, socat.
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { repositoryRoot } from '../support/lab/binaries.ts';
import { run } from '../support/lab/processes.ts';

/** How fast something is, `npm run bench` says; here, that each trial still measures something. */
test.each([
  ['kernels', /GB\/s/],
  ['threads', /1 thread +\d.* GB\/s +efficiency 1\.00/],
  ['dirty-log', /100 % written +collect \d.* ms\/GiB, write \d/],
  ['loopback-pages', /gigabytesPerSecond: ours \d.* iperf3 \d/],
  ['memory-bound', /highest RSS: send \d+ MiB of \d+, receive \d+ MiB of \d+/],
  ['one-path', /totalMs +ours ÷ peer \d/],
  ['batch-compression', /cpuSeconds +ours zstd ÷ zstd 256 KiB \d/],
  ['hostile-mix', /ours auto ÷ best peer of each pair \d/],
  ['fast-link', /totalMs +ours ÷ peer \d/],
  ['resent-pages', /bytesPerPage +ours ÷ peer .* peer \d/],
  ['tls-cost', /totalMs +ours ÷ peer \d/],
  ['transport-one-path', /gigabytesPerSecond +ours ÷ peer \d/],
  ['transport-paths', /mbit +ours ÷ peer \d/],
  ['transport-loss', /outageMs +ours ÷ peer/],
  ['transport-live', /reachedMs +ours ÷ peer/],
  ['transport-delay', /mbit +ours ÷ peer \d/],
  ['eviction', /freeMs +ours ÷ peer \d/],
])(
  'bench %s runs at its smallest size',
  async (trial, line) => {
    const command = [process.execPath, join(repositoryRoot, '.build/bench/main.js'), trial];
    const { stdout } = await run([...command, '--smoke'], { timeoutMs: 150_000 });
    expect(stdout).toMatch(line);
  },
  180_000,
);
