import { setTimeout as sleep } from 'node:timers/promises';
import type { MigrationResult } from '../../src/index.ts';
import { Latencies } from '../../src/migration/latencies.ts';
import { beginTo, configure, finish } from '../../test/support/lab/migrate.ts';
import { PagelaneMigration, type PagelaneOptions } from '../../test/support/pagelane.ts';
import { RedisServer } from '../../test/support/redis.ts';
import {
  type Figures,
  formatSpread,
  isChosen,
  spread,
  type Trial,
  type TrialOptions,
  takeTurns,
} from '../harness.ts';
import { checkGuest, withGuests } from './migrations.ts';

/*
 * How long QEMU waits for a page that its guest touches before it is there. Beside it, how long a
 * process that does nothing else waits for Redis on the same machine, busy as it is.
 */

/* Chosen by us */
const RATE = '8MB';
const MEMORY_MIB = 256;
const WORKLOAD = { fill: 96, rate: 500, content: 'random', verify: false } as const;
const TIMEOUT_MS = 180_000;
/** What the process beside asks for, and how often. */
const PROBE_BYTES = 65_526;
const PROBE_EVERY_MS = 5;

type Facts = NonNullable<MigrationResult['gathered']>['requests'];

export const pageRequests: Trial = {
  name: 'page-requests',
  question: 'How long does QEMU wait for a page that it asks for?',
  async run(options) {
    const lines: string[] = [];
    if (isChosen('staged', options)) lines.push(...(await compare('staged', options)));
    if (isChosen('straight', options)) lines.push(...(await compare('straight', options)));
    if (isChosen('preempt', options)) lines.push(...(await compare('preempt', options)));
    return lines;
  },
};

/** From where pages come; `preempt` is `straight` with QEMU's second channel. */
type Way = 'staged' | 'straight' | 'preempt';

async function compare(way: Way, { pairs }: Pick<TrialOptions, 'pairs'>): Promise<string[]> {
  const turns = await takeTurns(pairs, { [way]: () => measure(way) }, { warmUp: false });
  const row = (title: string, figure: string) =>
    `  ${title.padEnd(34)} ${formatSpread(spread(turns[way]!.map((run) => run[figure]!)))} ms`;
  const how = {
    staged: `from an intermediary on the same machine, ${RATE}/s gathered ahead`,
    straight: `from the source, on the same machine, ${RATE}/s sent`,
    preempt: `the same, with postcopy-preempt at both ends`,
  }[way];
  return [
    how,
    `  ${'requests'.padEnd(34)} ${formatSpread(spread(turns[way]!.map((run) => run['count']!)), 0)}`,
    row('median', 'medianMs'),
    row('99 %', 'p99Ms'),
    row('longest', 'maxMs'),
    row('GETRANGE alone beside it: median', 'aloneMedianMs'),
    row('  99 %', 'aloneP99Ms'),
  ];
}

/** Moves a guest by post-copy once. */
async function measure(way: Way): Promise<Figures> {
  await using server = await RedisServer.start(['--maxmemory', '2gb']);
  const stage = ['--stage', server.address.text];
  const words: Pick<PagelaneOptions, 'sendWords' | 'receiveWords'> =
    way === 'staged'
      ? { sendWords: stage, receiveWords: ['--stage-bandwidth', RATE] }
      : { sendWords: ['--max-bandwidth', RATE] };
  return await withGuests(WORKLOAD, { memoryMiB: MEMORY_MIB }, async (pair) => {
    const capabilities = { 'postcopy-ram': true, 'postcopy-preempt': way === 'preempt' };
    await configure(pair, { capabilities });
    await using migration = new PagelaneMigration(words);
    const uri = await migration.prepare(pair);
    using probe = new Probe(server);
    const begunMs = Date.now();
    await beginTo(pair.source, { uri });
    await pair.source.qmp.execute('migrate-start-postcopy');
    await finish(pair, { begunMs, timeoutMs: TIMEOUT_MS });
    const { destination } = await migration.results();
    await checkGuest(pair);
    const { requests, sourceRequests } = destination.gathered!;
    return figuresOf(way === 'staged' ? requests : sourceRequests, probe.facts());
  });
}

function figuresOf(own: Facts, alone: Facts): Figures {
  const { count, medianMs, p99Ms, maxMs } = own;
  if (count < 30) throw new Error(`Only ${count} requests: nothing to go by`);
  return {
    ...{ count, medianMs: medianMs!, p99Ms: p99Ms!, maxMs: maxMs! },
    ...{ aloneMedianMs: alone.medianMs!, aloneP99Ms: alone.p99Ms! },
  };
}

/** Asks a Redis for a value of its own, again and again. */
class Probe implements Disposable {
  readonly #latencies = new Latencies();
  #isOver = false;

  constructor({ admin }: RedisServer) {
    const ask = async (): Promise<void> => {
      await admin.set('probe', Buffer.alloc(PROBE_BYTES));
      while (!this.#isOver) {
        const beginMs = performance.now();
        await admin.getrangeBuffer('probe', 0, PROBE_BYTES);
        this.#latencies.add(performance.now() - beginMs);
        await sleep(PROBE_EVERY_MS);
      }
    };
    // It ends with its server.
    ask().catch(() => {});
  }

  facts(): Facts {
    return this.#latencies.facts();
  }

  [Symbol.dispose](): void {
    this.#isOver = true;
  }
}
