import { describe, expect, test } from 'vitest';
import { SILENCE_MS_MAX } from '../../src/path/limits.ts';
import { GROUP, groups } from './seeds.ts';
import { World } from './world.ts';

/** Simulated milliseconds. */
const RESUME_MS = 5000;

/** Takes all paths away in the middle of it. */
async function simulateLoss(seed: number): Promise<{ codes: unknown[]; wrong: string[] }> {
  const world = new World(seed, { resumeTimeoutMs: seed % 2 === 0 ? 0 : RESUME_MS });
  const { network, client, server, wrong } = world;
  const ends: unknown[] = [];
  for (const session of [client, server]) {
    session.ended.then((error) => ends.push(error?.code));
  }
  network.after(network.random() * 300, () => world.loseAll());
  const limitMs = 2 * SILENCE_MS_MAX + RESUME_MS;
  await network.run({ isDone: () => ends.length === 2, limitMs });
  return { codes: ends, wrong };
}

describe('Session on a simulated network that is lost for good', () => {
  test.each(groups(0.25))(
    'ends on both sides, at once or after the time-out: seeds from %i',
    async (first) => {
      for (let seed = first; seed < first + GROUP; seed++) {
        expect({ seed, ...(await simulateLoss(seed)) }).toEqual({
          seed,
          codes: ['ERR_PATHS_EXHAUSTED', 'ERR_PATHS_EXHAUSTED'],
          wrong: [],
        });
      }
    },
  );
});
