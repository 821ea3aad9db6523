import { createHash } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { SILENCE_MS_MAX } from '../../src/path/limits.ts';
import { type Canary, type Counts, World } from './world.ts';

/* Simulated time, milliseconds */
const LIMIT_MS = 600_000;

interface Outcome {
  readonly isDone: boolean;
  readonly wrong: string[];
  readonly log: string;
  readonly counts: Counts;
}

async function simulate(seed: number, canary: Canary = 'none'): Promise<Outcome> {
  const world = new World(seed, canary);
  const { network, client, server, flows, wrong } = world;
  const log = createHash('sha256');
  const isArrived = (): boolean => wrong.length > 0 || flows.every(({ isDone }) => isDone);
  let isDone = await network.run({ isDone: isArrived, limitMs: LIMIT_MS });
  if (!isDone) wrong.push(...flows.filter((flow) => !flow.isDone).map(({ progress }) => progress));
  log.update(`${network.nowMs} ${JSON.stringify(client.pathReports())}`);
  let ends: unknown[] | undefined;
  Promise.all([client.ended, server.ended]).then((both) => {
    ends = both;
  });
  client.close();
  const limitMs = network.nowMs + 60_000;
  isDone = (await network.run({ isDone: () => ends !== undefined, limitMs })) && isDone;
  for (const end of ends ?? ['no end']) if (end !== undefined) wrong.push(`ended with ${end}`);
  log.update(`${network.nowMs} ${JSON.stringify(server.pathReports())}`);
  return { isDone, wrong, log: log.digest('hex'), counts: world.counts };
}

/** Takes all paths away in the middle of it. */
async function simulateLoss(seed: number): Promise<{ codes: unknown[]; wrong: string[] }> {
  const world = new World(seed, 'none');
  const { network, client, server, wrong } = world;
  const ends: unknown[] = [];
  for (const session of [client, server]) {
    session.ended.then((error) => ends.push(error?.code));
  }
  network.after(network.random() * 300, () => world.loseAll());
  const limitMs = 3 * SILENCE_MS_MAX;
  await network.run({ isDone: () => ends.length === 2, limitMs });
  return { codes: ends, wrong };
}

const SEEDS = Number(process.env['PAGELANE_SIMULATION_SEEDS'] ?? 240);
const FROM = Number(process.env['PAGELANE_SIMULATION_FROM'] ?? 1);
const GROUP = 20;

describe('Session on a simulated network', () => {
  for (let first = FROM; first < FROM + SEEDS; first += GROUP) {
    const last = Math.min(FROM + SEEDS, first + GROUP) - 1;
    test(`delivers all once, in order of epochs, and ends: seeds ${first} to ${last}`, async () => {
      for (let seed = first; seed <= last; seed++) {
        const { isDone, wrong } = await simulate(seed);
        expect({ seed, isDone, wrong }).toEqual({ seed, isDone: true, wrong: [] });
      }
    });

    test(`ends on both sides when no path is left: seeds ${first} to ${last}`, async () => {
      for (let seed = first; seed <= last; seed++) {
        expect({ seed, ...(await simulateLoss(seed)) }).toEqual({
          seed,
          codes: ['ERR_PATHS_EXHAUSTED', 'ERR_PATHS_EXHAUSTED'],
          wrong: [],
        });
      }
    });
  }

  test('is the same with the same seed', async () => {
    expect((await simulate(7)).log).toBe((await simulate(7)).log);
    expect((await simulate(7)).log).not.toBe((await simulate(8)).log);
  });

  test('has every kind of harm in it, and what comes of it', async () => {
    const sums = new Map<string, number>();
    for (let seed = 1; seed <= 40; seed++) {
      for (const [name, count] of Object.entries((await simulate(seed)).counts)) {
        sums.set(name, (sums.get(name) ?? 0) + count);
      }
    }
    for (const [name, sum] of sums) expect(sum, name).toBeGreaterThan(10);
    expect(sums.size).toBe(7);
  });

  test.each(['epochs ignored', 'lost frames not sent again'] as const)(
    'finds the fault: %s',
    async (canary) => {
      let found = 0;
      for (let seed = 1; seed <= 20; seed++) {
        if ((await simulate(seed, canary)).wrong.length > 0) found++;
      }
      expect(found).toBeGreaterThan(5);
    },
  );
});
