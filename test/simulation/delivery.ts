import { createHash } from 'node:crypto';
import { expect, test } from 'vitest';
import { GROUP, groups } from './seeds.ts';
import { type Canary, type Counts, World } from './world.ts';

/** Simulated time in which all must have arrived, milliseconds. */
const LIMIT_MS = 180_000;

/** What came of a world. */
export interface Outcome {
  readonly isDone: boolean;
  readonly wrong: string[];
  readonly log: string;
  readonly counts: Counts;
}

/** Runs a world until all its traffic has arrived, and ends it. */
export async function simulate(seed: number, canary: Canary = 'none'): Promise<Outcome> {
  const world = new World(seed, { canary });
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
  world.calm();
  client.close();
  const limitMs = network.nowMs + 60_000;
  isDone = (await network.run({ isDone: () => ends !== undefined, limitMs })) && isDone;
  for (const end of ends ?? ['no end']) if (end !== undefined) wrong.push(`ended with ${end}`);
  log.update(`${network.nowMs} ${JSON.stringify(server.pathReports())}`);
  return { isDone, wrong, log: log.digest('hex'), counts: world.counts };
}

/** Declares the tests of every second group of seeds: two files of them run side by side. */
export function testDelivery(half: 0 | 1): void {
  const mine = groups().filter((_, index) => index % 2 === half);
  test.each(mine)(
    'delivers all once, in order of epochs, and ends: seeds from %i',
    async (first) => {
      for (let seed = first; seed < first + GROUP; seed++) {
        const { isDone, wrong } = await simulate(seed);
        expect({ seed, isDone, wrong }).toEqual({ seed, isDone: true, wrong: [] });
      }
    },
  );
}
