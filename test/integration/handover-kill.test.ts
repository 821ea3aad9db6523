import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { FileJournal, ownerOf } from '../../src/index.ts';
import { repositoryRoot } from '../support/lab/binaries.ts';
import { type RunningProcess, startProcess, waitUntil } from '../support/lab/processes.ts';

/* Requires nothing but setpriv. */

/** How often each point is tried. */
const REPEATS = Number(process.env['PAGELANE_KILL_REPEATS'] ?? 1);

/** No hand-over takes so long, however busy the machine is. */
const BOUND = { timeoutMs: 30_000 };

const HOST = join(repositoryRoot, '.build/test/support/handover-host.js');

type Side = 'source' | 'destination';

/** Two hosts and a folder that outlive the processes. */
class Hosts implements AsyncDisposable {
  readonly folder = mkdtempSync(join(tmpdir(), 'pagelane-kill-'));
  readonly processes: Partial<Record<Side, RunningProcess>> = {};

  start(side: Side, killAt?: number, env: Record<string, string> = {}): RunningProcess {
    if (side === 'destination') rmSync(join(this.folder, 'socket'), { force: true });
    const words = [process.execPath, HOST, side, this.folder];
    const point = killAt === undefined ? [] : [String(killAt)];
    const started = startProcess([...words, ...point], { env });
    this.processes[side] = started;
    return started;
  }

  /** Lines of the guest's log, in the order in which they came to be. */
  get log(): string[] {
    return readFileSync(join(this.folder, 'log'), 'utf8').trim().split('\n');
  }

  /** Where the guest ran at each moment. */
  get running(): string[][] {
    const states: Record<string, string> = {};
    return this.log.map((line) => {
      const [side, state] = line.split(' ') as [string, string];
      states[side] = state;
      return Object.keys(states).filter((each) => states[each] === 'running');
    });
  }

  /** Whether no journal says another thing; the destination's may be late. */
  async agreesWith(result: string): Promise<boolean> {
    for (const side of ['source', 'destination']) {
      const entry = await new FileJournal(join(this.folder, `${side}.journal`)).read();
      if (entry !== undefined && ownerOf(entry).guest !== result) return false;
    }
    return true;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const each of Object.values(this.processes)) await each.stop();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** Where the processes say the guest is; undefined as long as one has to say it. */
function resultOf({ processes }: Hosts): string | undefined {
  const of = (side: Side): string | undefined =>
    /^result (\w+)$/m.exec(processes[side]!.stdout())?.[1];
  // A destination that never heard of the guest has nothing to say.
  return of('source') === 'source' ? 'source' : of('source') && of('destination');
}

/** Kills one side at a point, lets it begin anew, and tells how it ended. */
async function handOver(kill?: { side: Side; at: number }) {
  await using hosts = new Hosts();
  const killed = (side: Side): number | undefined => (kill?.side === side ? kill.at : undefined);
  hosts.start('destination', killed('destination'));
  hosts.start('source', killed('source'));
  let decidedMs: number | undefined;
  if (kill !== undefined) {
    const victim = hosts.processes[kill.side]!;
    await waitUntil(`point ${kill.at} of ${kill.side}`, () => !victim.isRunning(), BOUND);
    const again = hosts.start(kill.side);
    const decision = (): string | undefined => /^decided (\d+) ms$/m.exec(again.stdout())?.[1];
    decidedMs = Number(await waitUntil('a decision', decision, BOUND));
  }
  const result = await waitUntil('an end', () => resultOf(hosts), BOUND);
  await waitUntil('journals that agree', () => hosts.agreesWith(result), BOUND);
  const points = (side: Side): number =>
    [...hosts.processes[side]!.stdout().matchAll(/^point/gm)].length;
  const { running } = hosts;
  return {
    result,
    atMost: Math.max(...running.map((sides) => sides.length)),
    last: running.at(-1),
    points: { source: points('source'), destination: points('destination') },
    decidedMs,
  };
}

describe('two processes, one of which is killed at each write, message and hook', () => {
  test('hand the guest over if neither is', async () => {
    const { points, ...end } = await handOver();
    expect(end).toMatchObject({ result: 'destination', atMost: 1, last: ['destination'] });
    expect(points.source).toBeGreaterThanOrEqual(14);
    expect(points.destination).toBeGreaterThanOrEqual(16);
  });

  test('have two copies run if one forgets', async () => {
    await using hosts = new Hosts();
    const forgetful = { FORGETFUL: '1' };
    hosts.start('destination');
    // Both writes, with a point before and after each, and both messages.
    const source = hosts.start('source', 8, forgetful);
    await waitUntil('point 8', () => !source.isRunning(), BOUND);
    hosts.start('source', undefined, forgetful);
    await waitUntil('two copies', () => hosts.running.some(({ length }) => length === 2), BOUND);
    expect(hosts.log).toContain('destination running');
  });

  const POINTS: Readonly<Record<Side, number>> = { source: 14, destination: 16 };
  for (const side of ['source', 'destination'] as const) {
    test(`${side}: one copy runs in the end, and never two`, { timeout: 3_600_000 }, async () => {
      const decisionsMs: number[] = [];
      for (let at = 1; at <= POINTS[side]; at++) {
        for (let repeat = 0; repeat < REPEATS; repeat++) {
          const { result, atMost, last, decidedMs } = await handOver({ side, at });
          expect({ at, atMost, last }).toEqual({ at, atMost: 1, last: [result] });
          decisionsMs.push(decidedMs!);
        }
      }
      const sorted = decisionsMs.sort((one, other) => one - other);
      const of = (share: number): number => sorted[Math.ceil(share * sorted.length) - 1]!;
      const times = `median ${of(0.5)}, 95 % ${of(0.95)}, longest ${of(1)} ms`;
      console.log(`${side}: from the beginning of a process to its decision: ${times}`);
    });
  }
});
