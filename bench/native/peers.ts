import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

function isInstalled(program: string): boolean {
  return spawnSync('which', [program]).status === 0;
}

/** What perf says that memcpy does, in GB/s; `undefined` without perf. */
export function perfMemcpy(): number | undefined {
  if (!isInstalled('perf')) return undefined;
  const words = ['bench', 'mem', 'memcpy', '-s', '256MB', '-l', '8', '-f', 'default'];
  const { stdout } = spawnSync('perf', words, { encoding: 'utf8' });
  const found = /([\d.]+) GB\/sec/.exec(stdout);
  return found === null ? undefined : (Number(found[1]) * 2 ** 30) / 1e9; // perf's GB are GiB
}

/**
 * Seconds that qemu-img's scan for zeros takes over the time it takes to read the same file;
 * `undefined` without qemu-img.
 */
export function qemuImgScan(pages: Uint8Array): { scan: number; read: number } | undefined {
  if (!isInstalled('qemu-img')) return undefined;
  const folder = mkdtempSync(join(tmpdir(), 'pagelane-scan-'));
  try {
    const file = join(folder, 'memory');
    writeFileSync(file, pages);
    const target = `driver=null-co,size=${pages.length},read-zeroes=on`;
    const convert = (sparse: string): number => {
      const words = ['convert', '-n', '--target-image-opts', '-S', sparse, '-f', 'raw'];
      const begin = performance.now();
      execFileSync('qemu-img', [...words, file, target]);
      return (performance.now() - begin) / 1000;
    };
    const best = (sparse: string): number =>
      Math.min(convert(sparse), convert(sparse), convert(sparse));
    const read = best('0');
    return { read, scan: best('4k') - read };
  } finally {
    rmSync(folder, { recursive: true });
  }
}
