// Requires: /dev/shm. PAGELANE_ROUNDS=20 kills at each step so often.
import { mkdtempSync, rmSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { hostNowMs } from '../../examples/embedded-vmm/registers.ts';
import { messageOf } from '../../src/index.ts';
import { waitUntil } from '../support/lab/processes.ts';
import { createPrng, integerBelow } from '../support/prng.ts';
import { BuiltVmm, VmmHost } from '../support/vmm/host.ts';
import { RunWatch } from '../support/vmm/watch.ts';

/* Chosen by us */
const ROUNDS = Number(process.env['PAGELANE_ROUNDS'] ?? 1);
const BOUND_MS = 20_000;
const ROUND_MS = 60_000;

type Victim = 'source' | 'destination';

/** What goes wrong beside the kill: nothing, or the last step of a side. */
const FAULTS = {
  nothing: {},
  'the source fails': { source: 'fail before state' },
  'the destination fails': { destination: 'fail before load' },
} as const;
type Fault = keyof typeof FAULTS;

const ABORTED = ['journal aborted', 'journal aborted settled'];

/** Every step of a hand-over; each is reached before and after it. */
const STEPS: Readonly<Record<Victim, Readonly<Record<Fault, readonly string[]>>>> = {
  source: {
    nothing: [
      'journal copying',
      'send reserve',
      'pause',
      'state',
      'journal committed',
      'send commit',
      'journal released',
      'send released',
      'forget',
      'journal released settled',
    ],
    'the source fails': [...ABORTED, 'send abort', 'run'],
    'the destination fails': [...ABORTED, 'run'],
  },
  destination: {
    nothing: [
      'journal reserved',
      'send reserved',
      'load',
      'journal ready',
      'send ready',
      'journal activating',
      'run',
      'journal active',
      'send active',
      'journal active settled',
    ],
    // The source has closed the session by the time it would be told "aborted".
    'the source fails': [...ABORTED, 'forget'],
    'the destination fails': [...ABORTED, 'send aborted', 'forget'],
  },
};

let built: BuiltVmm;
const decisionsMs: number[] = [];
const pausesMs: number[] = [];

beforeAll(async () => {
  built = await BuiltVmm.build();
});
afterAll(() => {
  built[Symbol.dispose]();
  const figures = [figuresOf('decided', decisionsMs), figuresOf('ran on', pausesMs)];
  if (ROUNDS > 1) console.log(`${decisionsMs.length} kills; ${figures.join('; ')}`);
});

function figuresOf(what: string, samples: number[]): string {
  const sorted = samples.sort((one, other) => one - other).map(Math.round);
  const within = sorted.filter((sample) => sample <= 1000).length;
  const last = `at most ${sorted.at(-1)} ms, ${within} of ${sorted.length} within 1 s`;
  return `${what} after ${sorted[sorted.length >> 1]} ms, ${last}`;
}

/** Two hosts between which a guest goes to and fro. */
class Hosts implements AsyncDisposable {
  readonly folder: string = mkdtempSync('/dev/shm/pagelane-kill-');
  readonly hosts: readonly [VmmHost, VmmHost];
  readonly watch: RunWatch;

  constructor(words: readonly string[]) {
    const common = ['--path-timeout', '1s', ...words];
    const { folder } = this;
    this.hosts = [
      new VmmHost(built, { name: 'one', folder, words: common }),
      new VmmHost(built, { name: 'other', folder, words: [...common, '--incoming'] }),
    ];
    this.watch = new RunWatch(
      new Map(this.hosts.map(({ name, registersPath }) => [name, registersPath])),
    );
  }

  async start(): Promise<void> {
    for (const host of this.hosts) {
      await host.start();
      await host.listening();
    }
  }

  /** Who has the guest, and who has not, once no migration is under way. */
  async calm(): Promise<Record<Victim, VmmHost>> {
    const look = async (): Promise<Record<Victim, VmmHost> | undefined> => {
      const [one, other] = [await this.hosts[0].status(), await this.hosts[1].status()];
      expect(this.watch.overlap()).toBeUndefined();
      if (one.isBusy || other.isBusy || one.runs === other.runs) return undefined;
      const [source, destination] = one.runs ? this.hosts : [...this.hosts].reverse();
      return { source: source!, destination: destination! };
    };
    try {
      return await waitUntil('one guest to run', look, { timeoutMs: BOUND_MS });
    } catch (cause) {
      throw new Error(`${messageOf(cause)}: ${this.#story()}`, { cause });
    }
  }

  #story(): string {
    return this.hosts.map((host) => `${host.name}: ${host.story()}`).join('\n');
  }

  /** The guest never ran twice, runs now and here, and its memory is what it wrote. */
  async expectOne(): Promise<void> {
    const { source } = await this.calm();
    const now = hostNowMs();
    await waitUntil('the guest to run', () => this.watch.runningSince(now).length > 0, {
      timeoutMs: BOUND_MS,
    });
    expect(this.watch.runningSince(now)).toEqual([source.name]);
    expect(this.watch.overlap()).toBeUndefined();
    expect(await source.check()).toBe('memory is right');
  }

  /** A host was killed: it is started again. */
  async bringBack(host: VmmHost): Promise<void> {
    expect(await host.ended()).toBe('SIGKILL');
    const killedMs = hostNowMs();
    await host.start();
    decisionsMs.push(hostNowMs() - killedMs);
    if (decisionsMs.at(-1)! > 1000) console.log(`Decided late: ${host.story()}`);
    await host.listening();
    await waitUntil('the guest to run', () => this.watch.runningSince(killedMs).length > 0, {
      timeoutMs: BOUND_MS,
    });
    const later = this.watch.stints().filter(({ lastMs }) => lastMs > killedMs);
    pausesMs.push(Math.max(0, Math.min(...later.map(({ startedMs }) => startedMs)) - killedMs));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.watch[Symbol.dispose]();
    for (const host of this.hosts) await host[Symbol.asyncDispose]();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

describe.each(['source', 'destination'] as const)('the %s is killed', (victim) => {
  // One pair for all of it: each kill finds what the last one left.
  let hosts: Hosts | undefined;
  beforeEach(async () => {
    if (hosts !== undefined) return;
    hosts = new Hosts(['--memory', '8MiB', '--dirty-rate', '1000']);
    await hosts.start();
  });
  const end = async (): Promise<void> => {
    await hosts?.[Symbol.asyncDispose]();
    hosts = undefined;
  };
  afterEach(async ({ task }) => {
    if (task.result?.state === 'fail') await end();
  });
  afterAll(end);

  const cases = (Object.keys(FAULTS) as Fault[]).flatMap((fault) =>
    STEPS[victim][fault].flatMap((step) =>
      ['before', 'after'].map((edge) => [`${edge} ${step}`, fault] as const),
    ),
  );
  test.each(cases)(
    '%s; %s beside',
    async (where, fault) => {
      for (let round = 0; round < ROUNDS; round++) {
        const roles = await hosts!.calm();
        const traps: Partial<Record<Victim, string>> = FAULTS[fault];
        for (const side of ['source', 'destination'] as const) {
          roles[side].trap(traps[side] ?? '', side === victim ? `kill ${where}` : '');
        }
        roles.source.tell(`migrate ${roles.destination.address}`);
        await hosts!.bringBack(roles[victim]);
        await hosts!.expectOne();
      }
    },
    ROUND_MS * ROUNDS,
  );
});

test.each([1, 2])(
  'a process is killed at any time, seed %i',
  async (seed) => {
    const random = createPrng(seed);
    await using hosts = new Hosts(['--memory', '32MiB', '--dirty-rate', '5000']);
    await hosts.start();
    for (let round = 0; round < 4 * ROUNDS; round++) {
      const roles = await hosts.calm();
      roles.source.tell(`migrate ${roles.destination.address}`);
      await new Promise((resolve) => setTimeout(resolve, integerBelow(random, 300)));
      const victim = roles[random() < 0.5 ? 'source' : 'destination'];
      victim.kill();
      await hosts.bringBack(victim);
      await hosts.expectOne();
    }
  },
  4 * ROUND_MS * ROUNDS,
);

test('a source whose destination is killed in the midst of rounds runs on, and moves later', async () => {
  await using hosts = new Hosts([
    '--memory',
    '64MiB',
    '--dirty-rate',
    '50000',
    '--downtime',
    '1ms',
  ]);
  await hosts.start();
  const { source, destination } = await hosts.calm();
  source.tell(`migrate ${destination.address}`);
  await source.hear(/^round 2: /m);
  destination.kill();
  await source.hear(/^not migrated: .*; guest: source$/m);
  await hosts.bringBack(destination);
  await hosts.expectOne();
  expect((await hosts.calm()).source).toBe(source);
});
