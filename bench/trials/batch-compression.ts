import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { run } from '../../test/support/lab/processes.ts';
import { PAGE_BYTES } from '../../test/support/qemu-stream.ts';
import {
  digitsOf,
  type Figures,
  formatSpread,
  isChosen,
  ratios,
  spread,
  type Trial,
  type TrialOptions,
  takeTurns,
} from '../harness.ts';
import type { EncodeReport, EncodeSettings } from '../support/encode-message.ts';
import {
  type PageSet,
  selectPages,
  takeGuestMemory,
  takeProcessImage,
} from '../support/page-set.ts';
import { writePageStream } from '../support/page-stream.ts';

/* Chosen by us */
const PAGES_BYTES_MAX: number = 256 * 1024 * 1024;
const SMOKE_BYTES: number = 8 * 1024 * 1024;
const TIMEOUT_MS = 180_000;
const ENCODE_PAGES = fileURLToPath(new URL('../support/encode-pages.js', import.meta.url));

type Program = 'lz4' | 'zstd';

/** The block of each program that is the peer, and those of which only the bytes are compared. */
const PEERS: Readonly<Record<Program, { block: number; others: readonly number[] }>> = {
  lz4: { block: 65_536, others: [4096] },
  zstd: { block: 262_144, others: [65_536, 4096] },
};

/** Pages of real guests through the addon, on one thread, beside lz4 and zstd themselves. */
export const batchCompression: Trial = {
  name: 'batch-compression',
  question: 'What do batches of real pages cost and gain, on one thread, beside lz4 and zstd?',
  async run(options) {
    const folder = mkdtempSync(join(tmpdir(), 'pagelane-bench-'));
    try {
      const lines: string[] = [];
      for await (const set of pageSets(folder, options)) {
        lines.push(...(await compare(set, folder, options)));
        rmSync(set.file);
      }
      return lines;
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  },
};

async function* pageSets(folder: string, options: TrialOptions): AsyncGenerator<PageSet> {
  if (options.isSmoke) {
    yield await takeProcessImage(folder, SMOKE_BYTES);
    return;
  }
  for (const kind of ['compile', 'redis'] as const) {
    if (!isChosen(kind, options)) continue;
    const ram = await takeGuestMemory(kind, folder);
    const bytesMax = PAGES_BYTES_MAX;
    const nonzero = `${kind} guest, non-zero pages`;
    yield selectPages(ram, { title: nonzero, skipsFilled: false, bytesMax });
    const varied = `${nonzero} that are not one repeated word`;
    yield selectPages(ram, { title: varied, skipsFilled: true, bytesMax });
    rmSync(ram);
  }
}

async function compare(set: PageSet, folder: string, options: TrialOptions): Promise<string[]> {
  const { isSmoke, pairs } = options;
  const seconds = isSmoke ? 1 : 3;
  const stream = join(folder, 'stream');
  writePageStream(set, stream);
  const ours = (codec: EncodeSettings['codec'], isNetworkLimit: boolean, storeBytes = 0) =>
    encodeOurs({ folder, set, stream, codec, isNetworkLimit, storeBytes, seconds });
  const figures = async (codec: Program): Promise<Figures> => {
    const { wireBytes, cpuSeconds } = await ours(codec, true);
    return { bytes: wireBytes, cpuSeconds };
  };
  const lines = [`${set.title}: ${set.indexes.length} pages, ${megabytes(pageBytes(set))} MB`];
  for (const program of ['lz4', 'zstd'] as const) {
    const { block, others } = PEERS[program];
    const turns = await takeTurns(
      pairs,
      {
        ours: () => figures(program),
        peer: () => benchmark(program, block, set, seconds),
      },
      { warmUp: false },
    );
    lines.push(...stateTurns(program, block, set, turns));
    for (const other of others) {
      const { bytes } = await benchmark(program, other, set, 1);
      const ratio = (turns.ours[0]!['bytes']! / bytes!).toFixed(3);
      const peer = `${program} ${formatBlock(other)}`;
      lines.push(
        `  bytes        ours ${program} ÷ ${peer} ${ratio}   peer ${megabytes(bytes!)} MB`,
      );
    }
  }
  for (const isNetworkLimit of [true, false]) {
    const limit = isNetworkLimit ? 'the network' : 'the processor';
    const title = `auto where ${limit} is the limit`;
    lines.push(describeOurs(title, await ours('auto', isNetworkLimit), set));
    const kept = await ours('auto', isNetworkLimit, pageBytes(set));
    lines.push(describeOurs(`${title}, with a page store`, kept, set));
  }
  rmSync(stream);
  return lines;
}

function stateTurns(
  program: Program,
  block: number,
  set: PageSet,
  { ours, peer }: { ours: readonly Figures[]; peer: readonly Figures[] },
): string[] {
  const title = `ours ${program} ÷ ${program} ${formatBlock(block)}`;
  return ['bytes', 'cpuSeconds'].map((figure) => {
    const ratio = formatSpread(ratios({ ours, peers: peer }, figure), 3);
    const [mine, theirs] = [ours, peer].map((runs) => {
      const scale = figure === 'bytes' ? 1e6 : 1;
      const all = spread(runs.map((each) => each[figure]! / scale));
      const rate =
        figure === 'bytes' ? ` MB, ${(pageBytes(set) / 1e6 / all.median).toFixed(2)}×` : '';
      const speed = pageBytes(set) / 1e9 / all.median;
      const each = figure === 'bytes' ? rate : ` s, ${speed.toFixed(3)} GB/s`;
      return `${formatSpread(all, figure === 'bytes' ? digitsOf(all) : 3)}${each}`;
    });
    return `  ${figure.padEnd(12)} ${title} ${ratio}   ours ${mine}   peer ${theirs}`;
  });
}

function describeOurs(title: string, report: EncodeReport, set: PageSet): string {
  const { codecs, wireBytes, cpuSeconds, step } = report;
  const counts = Object.entries(codecs).map(([codec, batches]) => `${codec} ${batches}`);
  const ratio = (pageBytes(set) / wireBytes).toFixed(2);
  const speed = (pageBytes(set) / 1e9 / cpuSeconds).toFixed(3);
  return (
    `  ${title}: ${step}, batches ${counts.join(', ')}, ` +
    `${megabytes(wireBytes)} MB, ${ratio}×, ${speed} GB/s`
  );
}

async function encodeOurs({
  folder,
  set,
  stream,
  ...rest
}: Omit<EncodeSettings, 'pages' | 'indexes'> & {
  readonly folder: string;
  readonly set: PageSet;
}): Promise<EncodeReport> {
  const settings: EncodeSettings = {
    ...rest,
    stream,
    pages: set.file,
    indexes: [...set.indexes],
  };
  const file = join(folder, 'settings');
  writeFileSync(file, JSON.stringify(settings));
  const { stdout } = await run([process.execPath, ENCODE_PAGES, file], { timeoutMs: TIMEOUT_MS });
  const report = JSON.parse(stdout) as EncodeReport;
  if (report.pages !== set.indexes.length) throw new Error(`${report.pages} pages were encoded`);
  return report;
}

/** What the program's own benchmark says: bytes, and processor time of its fastest pass. */
async function benchmark(
  program: Program,
  block: number,
  set: PageSet,
  seconds: number,
): Promise<Figures> {
  const words = [`-i${seconds}`, `-B${block}`, set.file];
  const level = program === 'lz4' ? ['-b1', '-e1'] : ['-b1'];
  const { stdout, stderr } = await run([program, ...level, ...words], { timeoutMs: TIMEOUT_MS });
  const last = [...`${stdout}${stderr}`.matchAll(/-> *(\d+) \(x?[\d.]+\), *([\d.]+) MB\/s/g)].at(
    -1,
  );
  if (last === undefined) throw new Error(`Cannot read what ${program} says: ${stdout}${stderr}`);
  return { bytes: Number(last[1]), cpuSeconds: pageBytes(set) / 1e6 / Number(last[2]) };
}

function pageBytes(set: PageSet): number {
  return set.indexes.length * PAGE_BYTES;
}

function megabytes(bytes: number): string {
  return (bytes / 1e6).toFixed(1);
}

function formatBlock(block: number): string {
  return `${block / 1024} KiB`;
}
