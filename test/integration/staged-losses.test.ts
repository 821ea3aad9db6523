// Requires: every QEMU of the lab, redis-server, /dev/shm, root for userfaultfd and namespaces.
// PAGELANE_ROUNDS=100 kills as many intermediaries; and cuts all paths half as often, to 60 s.
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { newestQemu, olderQemu } from '../support/lab/binaries.ts';
import { queryMigration } from '../support/lab/migrate.ts';
import { createPaths } from '../support/lab/netns.ts';
import { waitUntil } from '../support/lab/processes.ts';
import {
  type FilledPair,
  filledContent,
  PagelaneMigration,
  type StagedRun,
  startStagedRun,
} from '../support/pagelane.ts';
import { createPrng, integerBelow } from '../support/prng.ts';
import type { RedisServer } from '../support/redis.ts';

/*
 * A guest that stands still, so that its memory can be compared byte by byte, and what is between
 * its two hosts is lost.
 */

const TIMEOUT_MS = 60_000;
const ROUNDS = process.env['PAGELANE_ROUNDS'];
const FIRST_SEED = Number(process.env['PAGELANE_SEED'] ?? 1);
const KILLS = seeds(Number(ROUNDS ?? 3));
const CUTS = seeds(Math.ceil(Number(ROUNDS ?? 2) / 2));
const CUT_MS_MAX = ROUNDS === undefined ? 5000 : 60_000;
const WORDS = ['--interval', '20ms'];

/** Pre-copy takes a while, post-copy is not limited. */
const LIMITED = { parameters: { 'max-bandwidth': 16 * 1024 * 1024 } };

function seeds(count: number): number[] {
  return Array.from({ length: count }, (_, index) => FIRST_SEED + index);
}

async function statusOf(
  { qmp }: FilledPair['source'],
  statuses: readonly string[],
): Promise<string> {
  return await qmp.waitForMigration(statuses, { timeoutMs: TIMEOUT_MS });
}

/** Waits until QEMU has switched; returns an intermediary that holds some of what came then. */
async function untilScattered({ pair, servers }: StagedRun, keys: number): Promise<RedisServer> {
  await statusOf(pair.source, ['postcopy-active']);
  const find = async (): Promise<RedisServer | undefined> => {
    for (const server of servers) if ((await server.admin.dbsize()) >= keys) return server;
    return undefined;
  };
  return await waitUntil('pages to be scattered', find, { timeoutMs: TIMEOUT_MS });
}

/** Both QEMUs have completed; the destination has every byte of the source. */
async function expectEqual(pair: FilledPair, what = ''): Promise<void> {
  for (const guest of [pair.source, pair.destination]) {
    const ends = ['completed', 'failed'] as const;
    expect(await statusOf(guest, ends), what).toBe('completed');
  }
  const memories = [pair.sourceMemory, pair.destinationMemory].map((file) => readFileSync(file));
  expect(Buffer.compare(memories[0]!, memories[1]!), what).toBe(0);
}

describe('the only intermediary is lost while pages are scattered', () => {
  test.each([
    { name: 'newest QEMU', qemu: newestQemu() },
    { name: 'older QEMU', qemu: olderQemu() ?? newestQemu() },
  ])(
    'post-copy is paused, and QEMU recovers it ($name)',
    async ({ qemu }) => {
      const content = filledContent(1);
      const sendWords = ['--stage-bandwidth', '8MB'];
      await using run = await startStagedRun({ serverCount: 1, qemu, content, sendWords });
      const { pair, migration } = run;
      await migration.beginPostcopy(pair);
      const victim = await untilScattered(run, 20);
      await victim.kill();
      const { source, destination, exitCodes } = await migration.results();
      for (const result of [source, destination]) {
        expect(result).toMatchObject({
          outcome: 'failed',
          guest: 'destination',
          error: { code: 'ERR_POSTCOPY_PAUSED', phase: 'postcopy' },
        });
      }
      expect(exitCodes).toEqual([7, 7]);
      expect(migration.narration()).toMatch(
        /guest: at the destination\n {2}to do: .*migrate-recover/,
      );
      for (const guest of [pair.source, pair.destination]) {
        await waitUntil(
          'QEMU to pause post-copy',
          async () => (await queryMigration(guest)).status === 'postcopy-paused',
          { timeoutMs: TIMEOUT_MS },
        );
      }
      await using again = new PagelaneMigration({ pathCount: 2, isRecovery: true });
      await again.recover(pair);
      const recovered = await again.results();
      expect(recovered.exitCodes).toEqual([0, 0]);
      expect(recovered.source.guest).toBe('destination');
      await expectEqual(pair);
    },
    120_000,
  );
});

const MOMENTS = ['before the switch', 'during the scatter', 'after the source was freed'] as const;

describe('one of three intermediaries is lost, with parity: memory is equal', () => {
  test.each(KILLS)(
    'seed %i',
    async (seed) => {
      const random = createPrng(seed);
      const moment = MOMENTS[seed % MOMENTS.length]!;
      await using run = await startStagedRun({
        serverCount: 3,
        hasParity: true,
        content: filledContent(seed),
        words: WORDS,
        sendWords: ['--stage-bandwidth', '64MB'],
        receiveWords: ['--stage-bandwidth', '16MB'],
      });
      const { pair, servers, migration } = run;
      const victim = servers[integerBelow(random, servers.length)]!;
      const killSoon = async (withinMs: number): Promise<void> => {
        await sleep(integerBelow(random, withinMs));
        await victim.kill();
      };
      const whenFlows = async (): Promise<void> => {
        const flows = () => /"phase":"precopy".*"raw":[1-9]/.test(migration.sender.stdout());
        await waitUntil('memory to flow', flows, { timeoutMs: TIMEOUT_MS });
        if (moment === 'before the switch') await killSoon(300);
      };
      await migration.beginPostcopy(pair, { ...LIMITED, beforeStart: whenFlows });
      if (moment === 'during the scatter') {
        await statusOf(pair.source, ['postcopy-active']);
        await killSoon(600);
      } else if (moment === 'after the source was freed') {
        await statusOf(pair.source, ['completed', 'postcopy-paused']);
        await killSoon(1500);
      }
      const what = `seed ${seed}, ${moment}`;
      const { source, destination, exitCodes } = await migration.results().catch((error) => {
        throw new Error(`${what}: ${error.message}\n${migration.narration()}`);
      });
      expect(exitCodes, `${what}: ${migration.narration()}`).toEqual([0, 0]);
      expect(source, what).toMatchObject({ outcome: 'completed', guest: 'destination' });
      expect(destination, what).toMatchObject({ outcome: 'completed', guest: 'destination' });
      await expectEqual(pair, what);
      if (ROUNDS !== undefined) {
        const { mendedExtents } = destination.gathered!;
        console.log(
          `${what}: lost ${source.staged!.lostIntermediaries.length}, mended ${mendedExtents}`,
        );
      }
    },
    120_000,
  );
});

describe('all paths are cut in post-copy: it goes on, and memory is equal', () => {
  test.each(CUTS)(
    'seed %i',
    async (seed) => {
      const random = createPrng(seed);
      await using network = await createPaths({ count: 2, rateMbit: [200] });
      await using run = await startStagedRun({
        serverCount: 2,
        content: filledContent(seed),
        network,
        words: ['--resume-timeout', '90s'],
        sendWords: ['--stage-bandwidth', '8MB'],
      });
      const { pair, migration } = run;
      await migration.beginPostcopy(pair);
      await statusOf(pair.source, ['postcopy-active']);
      await sleep(integerBelow(random, 1500));
      const kind = seed % 2 === 0 ? 'silent' : 'carrier';
      const paths = [...network.paths.keys()];
      for (const index of paths) await network.cut(index, kind);
      expect(migration.result('sender')).toBeUndefined();
      await sleep(1000 + integerBelow(random, CUT_MS_MAX - 1000));
      expect(migration.result('sender')).toBeUndefined();
      for (const index of paths) await network.restore(index, kind);
      const { source, destination, exitCodes } = await migration.results();
      expect(exitCodes, migration.narration()).toEqual([0, 0]);
      expect(source).toMatchObject({ outcome: 'completed', guest: 'destination' });
      expect(destination).toMatchObject({ outcome: 'completed', guest: 'destination' });
      await expectEqual(pair, `seed ${seed}`);
    },
    180_000,
  );
});
