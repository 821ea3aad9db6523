/*
 * Moves the guest of examples/embedded-vmm before your eyes, to another hypervisor and back.
 *
 *   1. there   all that the guest has written
 *   2. back    what has changed since: its old host has kept its memory
 *   3. proof   the guest compares all of its memory with what it wrote
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { repositoryRoot } from '../test/support/lab/binaries.ts';
import { VmmHost } from '../test/support/vmm/host.ts';

const PROGRAM = { program: join(repositoryRoot, '.build/examples/embedded-vmm/run.js') };
const MEMORY = '256MiB';
const RUN_MS = 3000;

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}

/** Moves the guest, and prints what its host says of it. */
async function migrate(source: VmmHost, destination: VmmHost): Promise<void> {
  say(`\nfrom ${source.name} to ${destination.name}`);
  source.tell(`migrate ${destination.address}`);
  for (;;) {
    const [line] = await source.hear(/^(round \d|migrated |not migrated).*$/m);
    say(`  ${line}`);
    if (line.startsWith('not')) throw new Error(line);
    if (line.startsWith('migrated')) break;
  }
  await sleep(RUN_MS);
  await prove(destination);
}

async function prove(host: VmmHost): Promise<void> {
  const said = await host.check();
  if (said !== 'memory is right') throw new Error(`At ${host.name}: ${said}`);
  say(`  at ${host.name} the guest has checked all of its memory: it is what it wrote`);
}

async function demo(folder: string): Promise<void> {
  const words = ['--memory', MEMORY, ...process.argv.slice(2)];
  await using one = new VmmHost(PROGRAM, { name: 'one', folder, words });
  const incoming = [...words, '--incoming'];
  await using other = new VmmHost(PROGRAM, { name: 'other', folder, words: incoming });
  for (const host of [one, other]) {
    await host.start();
    await host.listening();
  }
  say(`a guest of ${MEMORY} runs at ${one.name}, and writes to its memory all the time`);
  await sleep(RUN_MS);
  await migrate(one, other);
  await migrate(other, one);
}

const folder = mkdtempSync('/dev/shm/pagelane-demo-');
try {
  await demo(folder);
} finally {
  rmSync(folder, { recursive: true, force: true });
}
