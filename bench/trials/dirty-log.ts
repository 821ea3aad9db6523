import { closeSync } from 'node:fs';
import { type DirtyLog, hashDirtyLog, writeProtectDirtyLog } from '../../src/page/dirty-log.ts';
import { createMemoryFile, GuestMemory } from '../../src/page/memory.ts';
import { formatSpread, spread, type Trial } from '../harness.ts';

/* Chosen by us */
const PAGE_BYTES = 4096;
const GIB = 2 ** 30;
/** Shares of the pages that are written before a collect. */
const SHARES = [0, 0.01, 1];

/** Milliseconds of a writer's pass, and of the collect behind it. */
interface Turn {
  readonly writeMs: number;
  readonly collectMs: number;
}

/** What each dirty log costs whoever collects, and whoever writes. */
export const dirtyLog: Trial = {
  name: 'dirty-log',
  question: 'What does it cost to know what was written, per GiB, and what does the writer pay?',
  async run({ isSmoke, pairs }) {
    const bytes = isSmoke ? GIB / 16 : 2 * GIB;
    const file = createMemoryFile('dirty-log', bytes);
    using memory = new GuestMemory([{ name: 'ram', file }], { isWritable: true });
    closeSync(file);
    const view = memory.view(0);
    for (let at = 0; at < bytes; at += 8) view[at] = at >> 12;
    const writeMs = Array.from({ length: pairs }, () => timed(() => write(view, 1)));
    const findMs = Array.from({ length: pairs }, () =>
      timed(() => memory.findPopulated(0, new Uint32Array(bytes / PAGE_BYTES / 32))),
    );
    return [
      `no log                   write all ${perPage(writeMs, bytes)} ns/page`,
      `findPopulated            ${perGib(findMs, bytes)} ms/GiB`,
      ...(await measure(memory, writeProtectDirtyLog(memory), 'write protection', pairs)),
      ...(await measure(memory, hashDirtyLog(memory, { threads: 1 }), 'hash, 1 thread', pairs)),
      ...(await measure(memory, hashDirtyLog(memory, { threads: 2 }), 'hash, 2 threads', pairs)),
    ];
  },
};

async function measure(
  memory: GuestMemory,
  log: DirtyLog,
  title: string,
  pairs: number,
): Promise<string[]> {
  const view = memory.view(0);
  const words = new Uint32Array(view.length / PAGE_BYTES / 32);
  const beganMs = performance.now();
  await log.start();
  const startMs = performance.now() - beganMs;
  const lines = [`${title.padEnd(24)} start ${perGib([startMs], view.length)} ms/GiB`];
  note(log, view);
  for (const share of SHARES) {
    const turns: Turn[] = [];
    // The first turn does not count.
    for (let pair = -1; pair < pairs; pair++) {
      const writeMs = timed(() => write(view, share));
      const collectBeganMs = performance.now();
      words.fill(0);
      await log.collect([words]);
      if (pair >= 0) turns.push({ writeMs, collectMs: performance.now() - collectBeganMs });
      note(log, view);
    }
    const collectMs = turns.map((turn) => turn.collectMs);
    const written = view.length * share;
    const paid =
      share === 0
        ? ''
        : `, write ${perPage(
            turns.map((turn) => turn.writeMs),
            written,
          )} ns/page`;
    const name = `  ${share * 100} % written`.padEnd(24);
    lines.push(`${name} collect ${perGib(collectMs, view.length)} ms/GiB${paid}`);
  }
  await log.stop();
  return lines;
}

/** Writes to a share of the pages, evenly. */
function write(view: Uint8Array, share: number): void {
  const step = share === 0 ? view.length : PAGE_BYTES * Math.round(1 / share);
  for (let at = share === 0 ? step : 0; at < view.length; at += step) view[at]!++;
}

/** Copies everything, as far as the log is concerned. */
function note(log: DirtyLog, view: Uint8Array): void {
  log.digests?.note(0, 0, view);
}

function timed(work: () => void): number {
  const beganMs = performance.now();
  work();
  return performance.now() - beganMs;
}

function perGib(milliseconds: readonly number[], bytes: number): string {
  return formatSpread(spread(milliseconds.map((ms) => (ms * GIB) / bytes)));
}

function perPage(milliseconds: readonly number[], bytes: number): string {
  return formatSpread(spread(milliseconds.map((ms) => (ms * 1e6 * PAGE_BYTES) / bytes)), 0);
}
