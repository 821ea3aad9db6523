import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { CodecName } from '../../src/index.ts';
import type { Guest, Workload } from '../../test/support/lab/guest.ts';
import {
  type MigrationReport,
  type MigrationSettings,
  migrate,
  type Pair,
} from '../../test/support/lab/migrate.ts';
import { PagelaneMigration } from '../../test/support/pagelane.ts';
import { PAGE_BYTES } from '../../test/support/qemu-stream.ts';
import {
  type Figures,
  isChosen,
  stateComparison,
  type Trial,
  type TrialOptions,
  takeTurns,
} from '../harness.ts';
import { checkGuest, checkResults, type Subject, withGuests } from './migrations.ts';

/* Chosen by us */

/** So slow that pages change while others are sent. */
const BYTES_PER_SECOND: number = 64 * 1024 * 1024;
/** QEMU goes on as long as any page changes: in that time it could not send one. */
const DOWNTIME_MS = 1;
const SWITCHOVER_BYTES_PER_SECOND = 1_000_000;
/** How long it sends pages again. */
const AGAIN_MS = 10_000;
const AGAIN_SMOKE_MS = 2000;
const ROUNDS_MIN = 7; // QEMU counts from 1 before the first
/** Then what is left may take as long as it does. */
const LAST_DOWNTIME_MS = 20_000;
const ROUNDS_TIMEOUT_MS = 90_000;
const POLL_MS = 20;

const FIGURES = ['bytesPerPage', 'withMisses', 'resentPages'];

interface Part {
  readonly name: string;
  readonly subject: Subject;
  readonly memoryMiB: number;
}

/** What `query-migrate` says of pages that were sent again. */
interface Xbzrle {
  readonly bytes: number;
  readonly pages: number;
  readonly overflow: number;
  readonly 'cache-miss': number;
}

/** Pages that were sent before and have changed, against QEMU's XBZRLE. */
export const resentPages: Trial = {
  name: 'resent-pages',
  question: 'How many bytes does a page take that is sent again, against QEMU’s XBZRLE?',
  async run(options) {
    const lines: string[] = [];
    for (const part of partsOf(options)) {
      if (isChosen(part.name, options)) lines.push(...(await compare(part, options)));
    }
    return lines;
  },
};

function partsOf({ isSmoke }: TrialOptions): readonly Part[] {
  const pages: Workload = {
    ...(isSmoke ? { fill: 32, hot: 4, rate: 8000 } : { fill: 256, hot: 32, rate: 8000 }),
    ...{ content: 'structured', verify: false },
  };
  const whole = { name: 'pages', subject: pages, memoryMiB: isSmoke ? 256 : 512 };
  if (isSmoke) return [whole];
  return [
    whole,
    { ...whole, name: 'words', subject: { ...pages, write: 'words' } },
    { name: 'redis', subject: 'redis', memoryMiB: 1024 },
    { name: 'compile', subject: 'compile', memoryMiB: 1024 },
  ];
}

async function compare(part: Part, { isSmoke, pairs }: TrialOptions): Promise<string[]> {
  const againMs = isSmoke ? AGAIN_SMOKE_MS : AGAIN_MS;
  const ours = (codec: CodecName) => () =>
    withGuests(part.subject, part, (pair) => throughPagelane(pair, codec, againMs));
  const turns = await takeTurns(
    pairs,
    {
      auto: ours('auto'),
      peer: () => withGuests(part.subject, part, (pair) => throughXbzrle(pair, againMs)),
      zstd: ours('zstd'),
    },
    { warmUp: false },
  );
  const title = `${describe(part)}, pages sent again`;
  const { peer: peers } = turns;
  return [
    ...stateComparison(`${title}, --codec auto ÷ XBZRLE`, { ours: turns.auto, peers }, FIGURES),
    ...stateComparison(`${title}, --codec zstd ÷ XBZRLE`, { ours: turns.zstd, peers }, FIGURES),
  ];
}

function describe({ name, subject, memoryMiB }: Part): string {
  if (typeof subject === 'string') return `${name} guest, ${memoryMiB} MiB`;
  const { fill, hot, rate } = subject;
  const change = name === 'words' ? 'a new word' : 'new content';
  return `${memoryMiB} MiB, ${fill} filled, ${rate} pages a second of ${hot} MiB get ${change}`;
}

async function throughPagelane(pair: Pair, codec: CodecName, againMs: number): Promise<Figures> {
  await using migration = new PagelaneMigration({ security: 'insecure', codec });
  await withRounds(pair, againMs, (settings) => migration.migrate(pair, settings));
  const { source } = await checkResults(migration);
  await checkGuest(pair);
  const { resent } = source;
  const bytesPerPage = resent.wireBytes / resent.pages;
  return {
    bytesPerPage,
    withMisses: bytesPerPage,
    resentPages: resent.pages,
    rounds: source.rounds,
  };
}

async function throughXbzrle(pair: Pair, againMs: number): Promise<Figures> {
  const uri = `unix:${join(pair.destination.folder, 'migration')}`;
  await withRounds(pair, againMs, (settings) =>
    migrate(pair, {
      ...settings,
      listen: { uri },
      capabilities: { xbzrle: true },
      parameters: { ...settings.parameters, 'xbzrle-cache-size': pair.source.memoryBytes },
    }),
  );
  await checkGuest(pair);
  const state = await pair.source.qmp.execute<{
    'xbzrle-cache': Xbzrle;
    ram: { 'dirty-sync-count': number };
  }>('query-migrate');
  const { bytes, pages, overflow, 'cache-miss': misses } = state['xbzrle-cache'];
  // Pages that were too different count among `pages`, with all of their bytes. Those that come for
  // the second time are not: QEMU fills its cache with them, and sends them whole.
  return {
    bytesPerPage: bytes / pages,
    withMisses: (bytes + misses * PAGE_BYTES) / (pages + misses),
    resentPages: pages + misses,
    overflow,
    misses,
    rounds: state.ram['dirty-sync-count'],
  };
}

/** Migrates slowly until pages were sent again for so long, and lets it complete then. */
async function withRounds(
  pair: Pair,
  againMs: number,
  begin: (settings: MigrationSettings) => Promise<MigrationReport>,
): Promise<void> {
  const slow = {
    'max-bandwidth': BYTES_PER_SECOND,
    'downtime-limit': DOWNTIME_MS,
    'avail-switchover-bandwidth': SWITCHOVER_BYTES_PER_SECOND,
  };
  const watch = new AbortController();
  try {
    await Promise.all([begin({ parameters: slow }), complete(pair.source, againMs, watch.signal)]);
  } finally {
    watch.abort();
  }
}

async function complete(source: Guest, againMs: number, signal: AbortSignal): Promise<void> {
  const deadlineMs = performance.now() + ROUNDS_TIMEOUT_MS;
  let firstPassMs = Number.POSITIVE_INFINITY;
  while (!signal.aborted) {
    const { ram, status } = await source.qmp.execute<{
      status?: string;
      ram?: { 'dirty-sync-count': number };
    }>('query-migrate');
    if (status === 'completed') return;
    const nowMs = performance.now();
    const rounds = ram?.['dirty-sync-count'] ?? 0;
    if (rounds > 1) firstPassMs = Math.min(firstPassMs, nowMs);
    const isEnough = rounds > ROUNDS_MIN && nowMs - firstPassMs > againMs;
    if (isEnough || nowMs > deadlineMs) {
      const fast = {
        'max-bandwidth': 0,
        'downtime-limit': LAST_DOWNTIME_MS,
        'avail-switchover-bandwidth': 0,
      };
      await source.qmp.execute('migrate-set-parameters', fast);
      return;
    }
    await sleep(POLL_MS);
  }
}
