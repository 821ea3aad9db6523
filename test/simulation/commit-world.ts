import {
  type Act,
  DESTINATION_TABLE,
  isSame,
  type JournalEntry,
  SOURCE_TABLE,
  whyNotReplaced,
} from '../../src/migration/commit.ts';

/*
 * All that can happen to a hand-over, over the table that the real classes use.
 *
 * What was sent stays in the air for ever and may arrive at any later time, any number of times, in
 * any order, or never: so loss, delay, repetition and disorder are all in it. Between two acts of a
 * side anything may happen at the other, or the process may end and begin anew.
 */

/** The rules that are looked at: the real ones, or wrong ones. */
export interface Rules {
  readonly source: Readonly<Record<string, Readonly<Record<string, readonly Act[]>>>>;
  readonly destination: Rules['source'];
  readonly isSame: typeof isSame;
  readonly whyNotReplaced: typeof whyNotReplaced;
}

export const RULES: Rules = {
  source: SOURCE_TABLE as Rules['source'],
  destination: DESTINATION_TABLE as Rules['source'],
  isSame,
  whyNotReplaced,
};

/* How far is looked */
const ATTEMPTS = 2;
const CRASHES = 2;

/** One side: its journal, what it is about to do, its copy of the guest. */
interface Side {
  readonly state: string;
  /** 0 before the first. */
  readonly attempt: number;
  readonly isSettled: boolean;
  /** Acts that are left of what it does; `attempt` is the one they begin, if they begin one. */
  readonly acts: readonly Act[];
  readonly begins: number;
  readonly guest: 'none' | 'paused' | 'running' | 'gone';
  readonly crashes: number;
}

/** Everything at one moment. */
export interface World {
  readonly source: Side;
  readonly destination: Side;
  /** The guest has run at the destination. */
  readonly hasRun: boolean;
  readonly isHostDead: boolean;
  /** What was ever sent: a bit for each word of each attempt. */
  readonly sent: number;
}

const WORDS = [
  'reserve',
  'memory',
  'commit',
  'abort',
  'released',
  'reserved',
  'ready',
  'active',
  'aborted',
] as const;
type Sent = (typeof WORDS)[number];
const SOURCE_WORDS: readonly Sent[] = ['reserve', 'commit', 'abort', 'released'];
const DESTINATION_WORDS: readonly Sent[] = ['reserved', 'ready', 'active', 'aborted'];
const MIGRATION = '0'.repeat(32);

const bitOf = (word: Sent, attempt: number): number =>
  1 << (WORDS.indexOf(word) * ATTEMPTS + attempt - 1);
const wasSent = (world: World, word: Sent, attempt: number): boolean =>
  (world.sent & bitOf(word, attempt)) !== 0;

const IDLE: Side = {
  state: 'none',
  attempt: 0,
  isSettled: false,
  acts: [],
  begins: 0,
  guest: 'none',
  crashes: 0,
};

export const FIRST: World = {
  source: { ...IDLE, guest: 'running' },
  destination: IDLE,
  hasRun: false,
  isHostDead: false,
  sent: 0,
};

/** One thing that may happen next. A crash is nothing that an end may rely on. */
export interface Step {
  readonly what: string;
  readonly next: World;
  readonly isCrash: boolean;
}

/** What must never be; undefined if all is well. */
export function wrongIn({ source, destination, hasRun }: World): string | undefined {
  if (source.guest === 'running' && destination.guest === 'running') return 'two run';
  if (source.guest === 'running' && hasRun) return 'the source runs what ran at the destination';
  if (source.guest === 'gone' && !hasRun) return 'the guest is lost';
  if (destination.guest === 'gone') return 'a copy that ran was discarded';
  return undefined;
}

/** Whether it has ended as it should, with one copy running and nothing left to do. */
export function isEnded({ source, destination }: World): boolean {
  const isHere = source.guest === 'running' && source.state === 'aborted' && source.isSettled;
  const isThere = destination.guest === 'running' && destination.state === 'active';
  return isHere !== isThere && (isHere || source.state === 'released');
}

/** Two worlds with the same text go on in the same ways. */
export function textOf({ source, destination, hasRun, isHostDead, sent }: World): string {
  return `${textOfSide(source)}|${textOfSide(destination)}|${hasRun}${isHostDead}${sent}`;
}

function textOfSide({ state, attempt, isSettled, acts, begins, guest, crashes }: Side): string {
  return `${state}${attempt}${isSettled}${acts.join()}${begins}${guest}${crashes}`;
}

/** Everything that may happen next. */
export function stepsFrom(world: World, rules: Rules): Step[] {
  const steps: Step[] = [];
  const add = (what: string, change: Partial<World>, isCrash = false): void => {
    steps.push({ what, next: { ...world, ...change }, isCrash });
  };
  sourceSteps(world, rules, add);
  if (!world.isHostDead) destinationSteps(world, rules, add);
  return steps;
}

type Add = (what: string, change: Partial<World>, isCrash?: boolean) => void;

function sourceSteps(world: World, rules: Rules, add: Add): void {
  const { source } = world;
  const { state, attempt, guest } = source;
  addCrash(source, rules.source, (next) => add('source crashes', { source: next }, true));
  if (source.acts.length > 0) {
    add(`source: ${source.acts[0]}`, act(world, 'source'));
    return;
  }
  const on = (event: string): void => {
    const acts = rules.source[state]?.[event];
    if (acts !== undefined) add(`source: ${event}`, { source: { ...source, acts } });
  };
  if (state === 'copying' && guest === 'running' && !wasSent(world, 'memory', attempt)) {
    const sent = world.sent | bitOf('memory', attempt);
    add('source pauses, sends the rest', { source: { ...source, guest: 'paused' }, sent });
  }
  const next = attempt + 1;
  if (next <= ATTEMPTS && mayBegin(source, 'source', next, rules)) {
    const begin = rules.source['none']!['begin']!;
    add(`source: begin ${next}`, { source: { ...source, acts: begin, begins: next } });
  }
  if (state === 'copying' && guest === 'paused' && wasSent(world, 'ready', attempt)) on('commit');
  on('abort');
  on('remind');
  for (const word of arrivals(world, DESTINATION_WORDS, source, rules)) on(`got ${word}`);
}

function destinationSteps(world: World, rules: Rules, add: Add): void {
  const { destination } = world;
  const { state, attempt } = destination;
  const isLast = destination.state === 'none' || destination.guest === 'none';
  if (!isLast) add('the host of the destination dies', dead(world));
  addCrash(destination, rules.destination, (next) =>
    add('destination crashes', { destination: next }, true),
  );
  if (destination.acts.length > 0) {
    add(`destination: ${destination.acts[0]}`, act(world, 'destination'));
    return;
  }
  const on = (event: string): void => {
    const acts = rules.destination[state]?.[event];
    if (acts !== undefined) add(`destination: ${event}`, { destination: { ...destination, acts } });
  };
  for (let next = 1; next <= ATTEMPTS; next++) {
    if (!wasSent(world, 'reserve', next)) continue;
    if (!mayBegin(destination, 'destination', next, rules)) continue;
    const reserve = rules.destination['none']!['reserve']!;
    const side = { ...destination, acts: reserve, begins: next };
    add(`destination: reserve ${next}`, { destination: side });
  }
  if (wasSent(world, 'memory', attempt) && destination.guest === 'paused') on('ready');
  on('abort');
  on('remind');
  for (const word of arrivals(world, SOURCE_WORDS, destination, rules)) on(`got ${word}`);
}

function dead(world: World): Partial<World> {
  return { isHostDead: true, destination: { ...world.destination, guest: 'none', acts: [] } };
}

/** Words that have arrived and are not dropped. */
function arrivals(
  world: World,
  words: readonly Sent[],
  { attempt }: Side,
  rules: Rules,
): Set<string> {
  const found = new Set<string>();
  for (let each = 1; each <= ATTEMPTS; each++) {
    const mine = { migration: MIGRATION, attempt };
    if (attempt === 0 || !rules.isSame(mine, { migration: MIGRATION, attempt: each })) continue;
    for (const word of words) if (wasSent(world, word, each)) found.add(word);
  }
  return found;
}

function mayBegin(side: Side, name: 'source' | 'destination', next: number, rules: Rules): boolean {
  const { state, attempt, isSettled } = side;
  const fields = { v: 1, side: name, state, migration: MIGRATION, attempt, name: '', isSettled };
  const entry = state === 'none' ? undefined : ({ ...fields, context: {} } as JournalEntry);
  const id = { migration: MIGRATION, attempt: next, side: name };
  return rules.whyNotReplaced(entry, id) === undefined;
}

/** The process ends here, and a new one begins with its journal. */
function addCrash(side: Side, table: Rules['source'], add: (next: Side) => void): void {
  if (side.crashes >= CRASHES) return;
  // One that has nothing to do would begin anew with nothing to do.
  if (side.acts.length === 0 && (side.isSettled || side.state === 'none')) return;
  const acts = side.isSettled ? [] : (table[side.state]?.['restart'] ?? []);
  add({ ...side, acts, begins: 0, crashes: side.crashes + 1 });
}

/** Does the first of the acts that are left. */
function act(world: World, name: 'source' | 'destination'): Partial<World> {
  const side = world[name];
  const [first, ...acts] = side.acts;
  if (first === 'settle') return { [name]: { ...side, acts, isSettled: true } };
  const [verb, what] = first!.split(' ') as [string, string];
  if (verb === 'journal') {
    const attempt = side.begins > 0 ? side.begins : side.attempt;
    // Memory for the guest is taken before it is said.
    const guest = what === 'reserved' ? 'paused' : side.guest;
    const next = { ...side, acts, guest, attempt, begins: 0, state: what, isSettled: false };
    return { [name]: next };
  }
  if (verb === 'send') {
    return { [name]: { ...side, acts }, sent: world.sent | bitOf(what as Sent, side.attempt) };
  }
  return call(what, world, name, acts);
}

/** Calls a hook of the guest. Without a copy to work on it throws, and the rest is not done. */
function call(
  what: string,
  world: World,
  name: 'source' | 'destination',
  acts: readonly Act[],
): Partial<World> {
  const side = world[name];
  const isRunning = side.guest === 'running';
  if (what === 'discard') {
    const guest = name === 'source' || isRunning ? 'gone' : 'none';
    return { [name]: { ...side, acts, guest } };
  }
  if (!isRunning && side.guest !== 'paused') return { [name]: { ...side, acts: [] } };
  return {
    [name]: { ...side, acts, guest: 'running' },
    hasRun: world.hasRun || name === 'destination',
  };
}

/** What was found by walking through everything. */
export interface Findings {
  readonly states: number;
  readonly steps: number;
  /** What must never be, and how it came about; undefined if it never is. */
  readonly wrong: { readonly what: string; readonly how: readonly string[] } | undefined;
  /** Worlds from which no way without another crash leads to a good end. */
  readonly stuck: readonly World[];
}

/** Walks through everything that may happen, until something is wrong. */
export function explore(rules: Rules): Findings {
  const worlds: World[] = [FIRST];
  const indexes = new Map([[textOf(FIRST), 0]]);
  const cameFrom: { readonly from: number; readonly what: string }[] = [{ from: -1, what: '' }];
  const before: number[][] = [[]];
  let steps = 0;
  for (let index = 0; index < worlds.length; index++) {
    for (const { what, next, isCrash } of stepsFrom(worlds[index]!, rules)) {
      steps++;
      const text = textOf(next);
      let at = indexes.get(text);
      if (at === undefined) {
        at = worlds.push(next) - 1;
        indexes.set(text, at);
        cameFrom.push({ from: index, what });
        before.push([]);
      }
      if (!isCrash) before[at]!.push(index);
      const wrong = wrongIn(next);
      if (wrong === undefined) continue;
      const how: string[] = [];
      for (let last = at; last > 0; last = cameFrom[last]!.from) how.unshift(cameFrom[last]!.what);
      return { states: worlds.length, steps, wrong: { what: wrong, how }, stuck: [] };
    }
  }
  return { states: worlds.length, steps, wrong: undefined, stuck: stuckOf(worlds, before) };
}

function stuckOf(worlds: readonly World[], before: readonly (readonly number[])[]): World[] {
  const isFine = worlds.map(isEnded);
  const open = worlds.flatMap((_, index) => (isFine[index] ? [index] : []));
  for (let at = open.pop(); at !== undefined; at = open.pop()) {
    for (const index of before[at]!) {
      if (isFine[index]) continue;
      isFine[index] = true;
      open.push(index);
    }
  }
  return worlds.filter((_, index) => !isFine[index]);
}
