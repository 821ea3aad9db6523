/*
 * Frees a source before your eyes while the destination still gathers its guest's pages.
 *
 *   1. boot    a guest that keeps rewriting its memory and checks it all the time
 *   2. evict   post-copy at once: the guest runs at the destination, its pages go to two Redis
 *   3. quit    the source's QEMU, and take its link down: nothing is needed of it any more
 *   4. gather  the destination fetches the rest at the rate of its own link
 *   5. proof   the guest has checked its memory, and no Redis holds a page of it
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { newestQemu } from '../test/support/lab/binaries.ts';
import { type Guest, startGuest } from '../test/support/lab/guest.ts';
import { beginTo, completionMs, configure, lastTimeMs } from '../test/support/lab/migrate.ts';
import { run } from '../test/support/lab/processes.ts';
import {
  createSwitched,
  IntermediaryServers,
  type SwitchedNetwork,
} from '../test/support/lab/switched.ts';
import { PagelaneMigration } from '../test/support/pagelane.ts';

const SOURCE_MBIT = 1000;
const DESTINATION_MBIT = 100;
const INTERMEDIARY_MBIT = [400, 400];
const INTERMEDIARY_MIB = 1024;
const MEMORY_MIB = 512;
/** Leaves a part of the destination's link to what the guest waits for. */
const PACE = '90mbit';
const WORKLOAD = { fill: 256, rate: 500, hot: 16, content: 'random', sweep: 8000 } as const;
const BOOT_TIMEOUT_MS = 60_000;
const MIGRATION_TIMEOUT_MS = 120_000;
const LOOK_MS = 3000;

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}

async function demo(): Promise<void> {
  const { version } = newestQemu();
  say(
    `pagelane demo: QEMU ${version}, a guest of ${MEMORY_MIB} MiB that checks ${WORKLOAD.fill} of them`,
  );
  say(`destination ${DESTINATION_MBIT} Mb/s, two Redis of ${INTERMEDIARY_MBIT[0]} Mb/s each\n`);
  await using network = await createSwitched({
    sourceMbit: SOURCE_MBIT,
    destinationMbit: DESTINATION_MBIT,
    intermediaryMbit: INTERMEDIARY_MBIT,
  });
  await using servers = await IntermediaryServers.start(network, INTERMEDIARY_MIB);
  const common = { memoryMiB: MEMORY_MIB, workload: WORKLOAD };
  await using source = await startGuest({ ...common, namespace: network.source });
  const place = { namespace: network.destination, isIncoming: true };
  await using destination = await startGuest({ ...common, ...place });
  await source.waitFor(/READY/, BOOT_TIMEOUT_MS);
  await source.waitForCounter(4, BOOT_TIMEOUT_MS);
  say(`  guest runs at the source, counter ${source.counter()}`);
  await using migration = new PagelaneMigration({
    network,
    sendWords: ['--stage', servers.stage],
    receiveWords: ['--stage-bandwidth', PACE],
  });
  try {
    await evict({ network, servers, migration }, source, destination);
  } catch (cause) {
    throw new Error(`The demo failed\n${migration.narration()}`, { cause });
  }
}

interface Lab {
  readonly network: SwitchedNetwork;
  readonly servers: IntermediaryServers;
  readonly migration: PagelaneMigration;
}

async function evict(lab: Lab, source: Guest, destination: Guest): Promise<void> {
  await configure({ source, destination }, { capabilities: { 'postcopy-ram': true } });
  const uri = await lab.migration.prepare({ destination });
  const emptyBytes = await lab.servers.usedBytes();
  const begunMs = Date.now();
  const since = (timeMs: number): string =>
    `${((timeMs - begunMs) / 1000).toFixed(1)} s`.padStart(8);
  const parked = async (): Promise<string> =>
    `${(((await lab.servers.usedBytes()) - emptyBytes) / 1e6).toFixed(0)} MB`;
  const told = [beginTo(source, { uri }), source.qmp.execute('migrate-start-postcopy')];
  const arrived = destination.qmp.waitForEvent('RESUME', { timeoutMs: MIGRATION_TIMEOUT_MS });
  await Promise.all([arrived, ...told]);
  const resumedMs = lastTimeMs(destination, 'RESUME');
  const downtimeMs = resumedMs - lastTimeMs(source, 'STOP');
  say(
    `${since(resumedMs)}  the guest runs at the destination; it stood still ${downtimeMs.toFixed(0)} ms`,
  );

  await completed(source);
  const freeMs = completionMs(source);
  say(`${since(freeMs)}  the source is free; the intermediaries hold ${await parked()}`);
  const counter = source.counter();
  await leave(lab, source);
  say(`${since(Date.now())}  source: QEMU quit, pagelane send ended, link down`);

  const gathered = completed(destination);
  while ((await Promise.race([gathered, sleep(LOOK_MS, 'under way')])) === 'under way') {
    const left = `${await parked()} in Redis`;
    const now = Math.max(counter, destination.counter());
    say(`${since(Date.now())}  guest runs on, counter ${now}; ${left}`);
  }
  const doneMs = completionMs(destination);
  say(`${since(doneMs)}  every page is at the destination`);
  await prove(lab, destination, counter);
}

async function completed(guest: Guest): Promise<void> {
  const limit = { timeoutMs: MIGRATION_TIMEOUT_MS };
  const status = await guest.qmp.waitForMigration(['completed', 'failed'], limit);
  if (status !== 'completed') throw new Error(`Migration ${status}: ${guest.stderr()}`);
}

/** Takes everything of the source away. */
async function leave({ network, migration }: Lab, source: Guest): Promise<void> {
  await migration.sender.exit(MIGRATION_TIMEOUT_MS);
  await source.qmp.execute('quit');
  await source.stop();
  await run(['ip', '-n', network.source, 'link', 'set', network.paths[0]!.device, 'down']);
}

async function prove({ servers, migration }: Lab, guest: Guest, counter: number): Promise<void> {
  const { source, destination } = await migration.results();
  const { extents = 0, extentBytes = 0 } = source.staged ?? {};
  const { wantedExtents = 0 } = destination.gathered ?? {};
  say(
    `  ${extents} extents, ${(extentBytes / 1e6).toFixed(0)} MB; ` +
      `${wantedExtents} of them came at once, because the guest touched them`,
  );
  say(`  keys left in Redis: ${await servers.usedKeys()}`);
  await guest.waitForCounter(counter + 2, MIGRATION_TIMEOUT_MS);
  await guest.verifyMemory(MIGRATION_TIMEOUT_MS);
  say(`  counter: ${counter} at the source, goes on at the destination: ${guest.counter()}`);
  say('  the guest has checked all of its memory at the destination: intact');
}

await demo();
