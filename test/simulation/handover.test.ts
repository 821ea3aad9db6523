import { describe, expect, test } from 'vitest';
import { HandoverWorld } from './handover-world.ts';
import { GROUP, groups } from './seeds.ts';

/** One guest runs, at the side that both journals say. */
const ENDS = /^(running aborted, none (none|aborted)|none released, running active)$/;

describe('two hosts whose processes, messages, journals and hypervisors fail', () => {
  test.each(groups(0.5))('have one guest that runs in the end: seeds from %i', async (first) => {
    for (let seed = first; seed < first + GROUP; seed++) {
      const world = new HandoverWorld(seed);
      const end = await world.run();
      expect({ seed, end, wrong: world.wrong }).toEqual({
        seed,
        end: expect.stringMatching(ENDS),
        wrong: [],
      });
    }
  });

  test('a journal that forgets what it has written is found out', async () => {
    const wrong = new Set<string>();
    for (let seed = 1; seed <= 2 * GROUP; seed++) {
      const world = new HandoverWorld(seed, { isForgetful: true });
      await world.run();
      for (const what of world.wrong) wrong.add(what);
    }
    expect([...wrong]).toContain('two run');
  });
});
