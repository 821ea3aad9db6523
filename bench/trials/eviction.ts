import { setTimeout as sleep } from 'node:timers/promises';
import type { Workload } from '../../test/support/lab/guest.ts';
import {
  beginTo,
  completionMs,
  configure,
  finish,
  lastTimeMs,
  listenAt,
  type Pair,
} from '../../test/support/lab/migrate.ts';
import {
  createSwitched,
  IntermediaryServers,
  type SwitchedNetwork,
} from '../../test/support/lab/switched.ts';
import { PagelaneMigration, type PagelaneOptions } from '../../test/support/pagelane.ts';
import {
  type Comparison,
  type Figures,
  formatSpread,
  isChosen,
  ratios,
  spread,
  stateComparison,
  type Trial,
  type TrialOptions,
  takeTurns,
} from '../harness.ts';
import { checkGuest, warmFreeMemory, withGuests } from './migrations.ts';

/*
 * How soon the source is free of its guest, if pages wait in intermediaries for a destination that
 * cannot take what the source can send. Post-copy begins at once, so that each page goes once.
 */

/* Chosen by us */
const NARROW = { sourceMbit: 1000, destinationMbit: 100, intermediaryMbit: [400, 400] } as const;
/** What a paced destination gathers ahead: what the guest waits for finds the link free. */
const PACE = '90mbit';
const PACED: readonly string[] = ['--stage-bandwidth', PACE];
/** How long pre-copy goes on before post-copy is asked for, where it does. */
const PRECOPY_MS = 1000;
const TIMEOUT_MS = 180_000;
const PLAIN_PORT = 4444;
/** Most that one Redis may take: all of a guest, and what Redis wants beside. */
const INTERMEDIARY_MIB = 2048;
const LARGE: Setting = { memoryMiB: 1024, fill: 512, rate: 2000 };
const SMALL: Setting = { memoryMiB: 256, fill: 64, rate: 2000 };
const THIRD: Setting = { memoryMiB: 512, fill: 192, rate: 700 };
const CONTENTS = ['random', 'structured'] as const;
const SMOKE: Setting = { memoryMiB: 256, fill: 16, rate: 200 };

/*
 * SOLive's links of 1 Gb/s, of which migrations get 900 Mb/s. Here links have a part of that, and
 * the guest a part of the memory: all hosts share the processors of one machine.
 */
const SOLIVE_DIVISOR = 3;
const SOLIVE_SOURCE_MBIT = 900;
const SOLIVE_DESTINATIONS_MBIT = [500, 700, 900] as const;
const SOLIVE_SAYS =
  'SOLive, guests of 2 GB: two of 450 Mb/s 12–43 % below post-copy and 32–37 % below one; ' +
  'two or three up to 48 % below post-copy';

/** A guest, and when it is to leave. */
interface Setting {
  readonly memoryMiB: number;
  /** MiB of it that do not compress. */
  readonly fill: number;
  /** Pages it rewrites a second. */
  readonly rate: number;
  /** What it is filled with. @default random */
  readonly content?: (typeof CONTENTS)[number];
  /** How long after `migrate` post-copy is asked for; with it, if 0. @default 0 */
  readonly precopyMs?: number;
}

/** Moves the guest of `pair`; what it calls tells QEMU to migrate, and waits for the end. */
type Move = (pair: Pair, begin: (uri: string) => Promise<void>) => Promise<void>;

/** What a guest is moved by, on a network. */
type Way = (network: SwitchedNetwork) => Move;

/** How soon staged post-copy frees the source, beside direct post-copy. */
export const eviction: Trial = {
  name: 'eviction',
  question: 'How soon is the source free if pages wait in intermediaries, and what does it cost?',
  async run(options) {
    const lines: string[] = [];
    if (isChosen('narrow-100', options)) lines.push(...(await compareNarrow(options)));
    if (isChosen('downtime-100', options) && !options.isSmoke) {
      lines.push(...(await compareDowntime(options)));
    }
    for (const content of options.isSmoke ? [] : CONTENTS) {
      for (const mbit of SOLIVE_DESTINATIONS_MBIT) {
        if (!isChosen(`solive-${content}-${mbit}`, options)) continue;
        lines.push(...(await tabulate({ destinationMbit: mbit, content }, options)));
      }
    }
    return lines;
  },
};

/** Eviction, total and downtime where the destination's link is the narrowest by far. */
async function compareNarrow({ isSmoke, pairs }: TrialOptions): Promise<string[]> {
  await using network = await createSwitched(NARROW);
  const run = (move: Move) => () => measure(network, move, isSmoke ? SMOKE : LARGE);
  const turns = await takeTurns(
    pairs,
    {
      staged: run(staged(network)),
      paced: run(staged(network, PACED)),
      direct: run(direct(network)),
      plain: run(plain(network)),
    },
    { warmUp: false },
  );
  const state = (title: string, ours: 'staged' | 'paced', peer: 'direct' | 'plain') =>
    stateComparison(`${describe(NARROW)}: ${title}`, { ours: turns[ours], peers: turns[peer] }, [
      ...['freeMs', 'totalMs', 'downtimeMs', 'tickMs'],
    ]);
  return [
    ...state('staged ÷ pagelane without --stage', 'staged', 'direct'),
    ...state("staged ÷ QEMU's tcp:", 'staged', 'plain'),
    ...state(`staged, gathered at ${PACE} ÷ QEMU's tcp:`, 'paced', 'plain'),
  ];
}

/** How long a small guest stands still that leaves at once, or after pre-copy has begun. */
async function compareDowntime({ pairs }: TrialOptions): Promise<string[]> {
  await using network = await createSwitched(NARROW);
  const lines: string[] = [];
  for (const precopyMs of [0, PRECOPY_MS]) {
    const run = (move: Move) => () => measure(network, move, { ...SMALL, precopyMs });
    const turns = await takeTurns(
      pairs,
      {
        staged: run(staged(network)),
        direct: run(direct(network)),
        plain: run(plain(network)),
      },
      { warmUp: false },
    );
    const when = precopyMs === 0 ? 'post-copy at once' : `post-copy after ${precopyMs} ms`;
    for (const ours of ['staged', 'direct'] as const) {
      const title = `${describe(NARROW)}, ${when}: ${ours} ÷ QEMU's tcp:`;
      const comparison = { ours: turns[ours], peers: turns.plain };
      lines.push(...stateComparison(title, comparison, ['downtimeMs', 'tickMs']));
    }
  }
  return lines;
}

/** One destination in SOLive's setting: by way of nobody, and of each set of intermediaries. */
async function tabulate(
  {
    destinationMbit,
    content,
  }: { readonly destinationMbit: number; readonly content: (typeof CONTENTS)[number] },
  { pairs }: TrialOptions,
): Promise<string[]> {
  const run =
    (way: Way, intermediaryMbit: readonly number[] = []) =>
    async () => {
      await using network = await createSwitched({
        sourceMbit: SOLIVE_SOURCE_MBIT / SOLIVE_DIVISOR,
        destinationMbit: Math.round(destinationMbit / SOLIVE_DIVISOR),
        intermediaryMbit: intermediaryMbit.map((mbit) => mbit / SOLIVE_DIVISOR),
      });
      return await measure(network, way(network), { ...THIRD, content });
    };
  const turns = await takeTurns(
    pairs,
    {
      plain: run(plain),
      direct: run(direct),
      one450: run(staged, [450]),
      two450: run(staged, [450, 450]),
      three300: run(staged, [300, 300, 300]),
      one900: run(staged, [900]),
    },
    { warmUp: false },
  );
  const names = Object.keys(turns) as (keyof typeof turns)[];
  return [
    `source ${SOLIVE_SOURCE_MBIT}, destination ${destinationMbit} Mb/s, all ÷ ${SOLIVE_DIVISOR}; ${content}`,
    ...names.map((name) => formatRow(name, { ours: turns[name], peers: turns.plain })),
    `  two450 ÷ one450: ${formatSpread(
      ratios({ ours: turns.two450, peers: turns.one450 }, 'freeMs'),
    )}`,
    `  ${SOLIVE_SAYS}`,
  ];
}

function formatRow(name: string, comparison: Comparison): string {
  const parts = (['freeMs', 'totalMs'] as const).map((figure) => {
    const ms = formatSpread(spread(comparison.ours.map((run) => run[figure]!)), 0);
    return `${figure} ${ms}, ÷ QEMU's tcp: ${formatSpread(ratios(comparison, figure))}`;
  });
  return `  ${name.padEnd(9)} ${parts.join('   ')}`;
}

function describe({ destinationMbit, intermediaryMbit }: typeof NARROW): string {
  return `destination ${destinationMbit} Mb/s, intermediaries ${intermediaryMbit.join(' + ')} Mb/s`;
}

/** Moves a guest once. */
async function measure(
  network: SwitchedNetwork,
  move: Move,
  { memoryMiB, fill, rate, content = 'random', precopyMs = 0 }: Setting,
): Promise<Figures> {
  const workload: Workload = { fill, rate, content, verify: false };
  return await withGuests(workload, { network, memoryMiB }, async (pair) => {
    await configure(pair, { capabilities: { 'postcopy-ram': true } });
    let figures: Figures = {};
    await move(pair, async (uri) => {
      await warmFreeMemory();
      figures = await postcopy(pair, { uri, precopyMs });
    });
    await checkGuest(pair);
    return figures;
  });
}

async function postcopy(
  pair: Pair,
  { uri, precopyMs }: { readonly uri: string; readonly precopyMs: number },
): Promise<Figures> {
  const { source, destination } = pair;
  const begunMs = Date.now();
  const ticked = destination.waitForCounter(-1, TIMEOUT_MS).then(() => Date.now());
  const finished = finish(pair, { begunMs, timeoutMs: TIMEOUT_MS });
  // Nobody waits between the two: a quick source would have sent tens of MB before.
  const told = [beginTo(source, { uri })];
  if (precopyMs > 0) await sleep(precopyMs);
  told.push(source.qmp.execute('migrate-start-postcopy').then(() => {}));
  const [report, tickedMs] = await Promise.all([finished, ticked, ...told]);
  return {
    freeMs: completionMs(source) - begunMs,
    totalMs: report.elapsedMs,
    downtimeMs: report.pausedMs,
    tickMs: tickedMs - lastTimeMs(source, 'STOP'),
  };
}

/** QEMU itself, over the link between the two hosts. */
function plain(network: SwitchedNetwork): Move {
  const uri = `tcp:${network.paths[0]!.destinationAddress}:${PLAIN_PORT}`;
  return async ({ destination }, begin) => {
    await listenAt(destination, { uri });
    await begin(uri);
  };
}

/** pagelane over the same link. */
function direct(network: SwitchedNetwork): Move {
  return through(network, {});
}

/** pagelane by way of every intermediary. */
function staged(network: SwitchedNetwork, receiveWords: readonly string[] = []): Move {
  return async (pair, begin) => {
    await using servers = await IntermediaryServers.start(network, INTERMEDIARY_MIB);
    const words = { sendWords: ['--stage', servers.stage], receiveWords };
    await through(network, words)(pair, begin);
    const parked = await servers.usedKeys();
    if (parked > 0) throw new Error(`Intermediaries still hold ${parked} keys`);
  };
}

function through(
  network: SwitchedNetwork,
  words: Pick<PagelaneOptions, 'sendWords' | 'receiveWords'>,
): Move {
  return async (pair, begin) => {
    await using migration = new PagelaneMigration({ network, ...words });
    const uri = await migration.prepare(pair);
    try {
      await begin(uri);
    } catch (cause) {
      throw new Error(migration.narration(), { cause });
    }
    const { source, destination } = await migration.results();
    for (const { side, outcome } of [source, destination]) {
      if (outcome !== 'completed') throw new Error(`${side}: ${outcome}`);
    }
    const isStaged = source.staged !== undefined && destination.gathered !== undefined;
    if (isStaged !== (words.sendWords !== undefined)) throw new Error('Pages went another way');
  };
}
