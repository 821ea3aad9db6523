/*
 * Moves a real guest before your eyes: once as QEMU does it, once by pagelane over two paths.
 *
 *   1. boot      a guest that keeps rewriting its memory and checks it all the time
 *   2. plain     QEMU's own tcp: over one of the paths
 *   3. pagelane  over both
 *   4. proof     the guest's counter goes on at the destination, and its memory is what it wrote
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { newestQemu } from '../test/support/lab/binaries.ts';
import { type Guest, startGuest } from '../test/support/lab/guest.ts';
import { type MigrationReport, migrate, type Pair } from '../test/support/lab/migrate.ts';
import { createPaths, type LabNetwork } from '../test/support/lab/netns.ts';
import { PagelaneMigration } from '../test/support/pagelane.ts';

const RATE_MBIT = 300;
const WORKLOAD = { fill: 192, rate: 1500, content: 'mixed' } as const;
const MEMORY_MIB = 512;
const BOOT_TIMEOUT_MS = 60_000;
const PLAIN_PORT = 4444;

const isRoot = process.getuid?.() === 0;

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}

async function demo(): Promise<void> {
  say(`pagelane demo: QEMU ${newestQemu().version}, a guest of ${MEMORY_MIB} MiB`);
  say(
    isRoot
      ? `two network paths of ${RATE_MBIT} Mb/s, made of network namespaces\n`
      : 'not root: two loopback addresses, no limit on their rate\n',
  );
  const network = isRoot ? await createPaths({ count: 2, rateMbit: [RATE_MBIT] }) : undefined;
  try {
    const plain = await plainMigration(network);
    const ours = await pagelaneMigration(network);
    table(plain, ours);
  } finally {
    await network?.[Symbol.asyncDispose]();
  }
}

async function plainMigration(network: LabNetwork | undefined): Promise<MigrationReport> {
  const host = network?.paths[0]?.destinationAddress ?? '127.0.0.1';
  const uri = `tcp:${host}:${PLAIN_PORT}`;
  return await withGuests(network, `plain QEMU ${uri}, one path`, (pair) =>
    migrate(pair, { listen: { uri } }),
  );
}

async function pagelaneMigration(network: LabNetwork | undefined): Promise<MigrationReport> {
  return await withGuests(network, 'pagelane, two paths, TLS', async (pair) => {
    await using migration = new PagelaneMigration({
      ...(network && { network }),
      pathCount: 2,
      words: ['--interval', '250ms'],
    });
    const moving = migration.migrate(pair);
    await showProgress(migration, moving);
    const report = await moving;
    const { source } = await migration.results();
    for (const path of source.paths) {
      say(`  ${path.local} → ${path.remote}  ${(path.wireBytes / 1e6).toFixed(0)} MB`);
    }
    say(`  digest of what was sent and what was applied: equal ${source.digest.equal}`);
    return report;
  });
}

/** Prints the sender's progress lines as they come. */
async function showProgress(migration: PagelaneMigration, moving: Promise<unknown>): Promise<void> {
  let isOver = false;
  const over = moving.then(
    () => {
      isOver = true;
    },
    () => {
      isOver = true;
    },
  );
  let shown = 0;
  while (!isOver) {
    const lines = migration.narration().split('--- receive ---')[0]!.split('\n');
    const news = lines.filter((line) => /round \d|switchover/.test(line)).slice(shown);
    for (const line of news) say(`  ${line.replace('pagelane: ', '')}`);
    shown += news.length;
    await Promise.race([over, sleep(100)]);
  }
}

async function withGuests(
  network: LabNetwork | undefined,
  title: string,
  transport: (pair: Pair) => Promise<MigrationReport>,
): Promise<MigrationReport> {
  say(`${title}`);
  const place = (namespace: string | undefined) => ({ ...(namespace && { namespace }) });
  const common = { memoryMiB: MEMORY_MIB, workload: WORKLOAD };
  await using source = await startGuest({ ...common, ...place(network?.source) });
  const incoming = { ...common, isIncoming: true, ...place(network?.destination) };
  await using destination = await startGuest(incoming);
  await source.waitFor(/READY/, BOOT_TIMEOUT_MS);
  await source.waitForCounter(4, BOOT_TIMEOUT_MS);
  say(`  guest runs at the source, counter ${source.counter()}`);
  const report = await transport({ source, destination });
  await prove(source, destination);
  return report;
}

async function prove(source: Guest, destination: Guest): Promise<void> {
  const last = source.counter();
  await destination.waitForCounter(last + 2, 20_000);
  await destination.verifyMemory();
  const complaints = destination.complaints();
  if (complaints.length > 0) throw new Error(`The guest complains: ${complaints.join('; ')}`);
  say(`  counter: ${last} at the source, goes on at the destination: ${destination.counter()}`);
  say('  the guest has checked all of its memory at the destination: intact\n');
}

function table(plain: MigrationReport, ours: MigrationReport): void {
  const row = (name: string, report: MigrationReport): string =>
    `  ${name.padEnd(28)} ${String(report.elapsedMs).padStart(6)} ms ${String(report.pausedMs).padStart(10)} ms`;
  say(`  ${''.padEnd(28)} ${'total'.padStart(9)} ${'downtime'.padStart(13)}`);
  say(row('plain QEMU tcp:, one path', plain));
  say(row('pagelane, two paths', ours));
}

await demo();
