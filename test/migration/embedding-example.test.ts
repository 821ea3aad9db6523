import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { type Hypervisor, receive, recover, send } from '../../examples/move-guest.ts';
import { FileJournal, GuestMemory, ownerOf } from '../../src/index.ts';
import { repositoryRoot } from '../support/lab/binaries.ts';
import { openGuestEnds, SmallGuest } from './guest-support.ts';

const MEMORY_BYTES = 4 * 1024 * 1024;

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'pagelane-example-'));
});
afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

/** A hypervisor that notes what is asked of it; its guest writes while it runs. */
class NotedHypervisor implements Hypervisor, Disposable {
  readonly name: string = 'vm1';
  readonly journal: FileJournal;
  readonly calls: string[] = [];
  memoryBytesMax: number = MEMORY_BYTES;
  readonly #side: string;
  #guest: SmallGuest | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(side: string) {
    this.#side = side;
    this.journal = new FileJournal(join(folder, `${side}.journal`));
  }

  /** Makes a guest here, and runs it. */
  boot(): void {
    const path = this.pathOf(0);
    writeFileSync(path, new Uint8Array(MEMORY_BYTES));
    const memory = new GuestMemory([{ name: 'ram', path }], { isWritable: true });
    this.#guest = new SmallGuest(memory, 1);
    this.#guest.write(400);
    this.#timer = setInterval(() => this.#guest?.isRunning && this.#guest.write(1), 5);
  }

  pathOf(block: number): string {
    return join(folder, `${this.#side}.ram${block}`);
  }

  async run(): Promise<void> {
    this.calls.push('run');
    if (this.#guest !== undefined) this.#guest.isRunning = true;
  }

  async isRunning(): Promise<boolean> {
    return this.#guest?.isRunning === true;
  }

  async pause(): Promise<void> {
    this.calls.push('pause');
    this.#guest!.isRunning = false;
  }

  slowDown(): void {}

  async saveState(): Promise<Uint8Array> {
    return Buffer.from('registers');
  }

  async loadState(state: Uint8Array): Promise<void> {
    this.calls.push(`load ${Buffer.from(state).toString()}`);
  }

  takeDirty(block: number, words: Uint32Array): void {
    this.#guest!.takeDirty(block, words);
  }

  async remove(): Promise<void> {
    this.calls.push('remove');
  }

  get memory(): Buffer {
    return readFileSync(this.pathOf(0));
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    this.#guest?.memory.dispose();
  }
}

async function ownerBy({ journal }: Hypervisor): Promise<string> {
  const entry = await journal.read();
  // One that was refused at once never began.
  return entry === undefined ? 'source' : ownerOf(entry).guest;
}

const neverAsked = (): Promise<never> => Promise.reject(new Error('Nobody is to be asked'));

test('examples/move-guest.ts moves a guest that writes', async () => {
  await using ends = await openGuestEnds();
  using here = new NotedHypervisor('here');
  using there = new NotedHypervisor('there');
  here.boot();
  const [sent, received] = await Promise.all([
    send(here, ends.source),
    receive(there, ends.destination),
  ]);
  expect(sent.error).toBeUndefined();
  expect(sent).toMatchObject({ outcome: 'completed', guest: 'destination', fallbacks: [] });
  expect(received).toMatchObject({ outcome: 'completed', guest: 'destination' });
  expect(here.calls).toEqual(['pause', 'remove']);
  expect(there.calls).toEqual(['load registers', 'run']);
  expect(Buffer.compare(here.memory, there.memory)).toBe(0);
  expect(await ownerBy(here)).toBe('destination');
  expect(await ownerBy(there)).toBe('destination');
  // A process that begins anew has nothing to ask, and nothing to do.
  expect(await recover(here, neverAsked)).toEqual({ guest: 'destination' });
  expect(here.calls).toEqual(['pause', 'remove']);
});

test('a guest for which there is no room runs on', async () => {
  await using ends = await openGuestEnds();
  using here = new NotedHypervisor('here');
  using there = new NotedHypervisor('there');
  there.memoryBytesMax = MEMORY_BYTES - 1;
  here.boot();
  const [sent, received] = await Promise.all([
    send(here, ends.source),
    receive(there, ends.destination),
  ]);
  expect(sent).toMatchObject({ outcome: 'failed', guest: 'source' });
  expect(sent.error).toMatchObject({ code: 'ERR_VM_NO_ROOM' });
  expect(received).toBeUndefined();
  expect(await here.isRunning()).toBe(true);
  expect(here.calls).not.toContain('pause');
  expect(await ownerBy(here)).toBe('source');
  expect(() => statSync(there.pathOf(0))).toThrow(/ENOENT/);
});

test('a source that had committed asks the destination', async () => {
  using here = new NotedHypervisor('here');
  using there = new NotedHypervisor('there');
  const entry = {
    v: 1,
    migration: 'ab'.repeat(16),
    attempt: 1,
    name: 'vm1',
    isSettled: false,
    context: {},
  } as const;
  await here.journal.write({ ...entry, side: 'source', state: 'committed' });
  await there.journal.write({ ...entry, side: 'destination', state: 'active' });
  await using ends = await openGuestEnds();
  const [found, answered] = await Promise.all([
    recover(here, async () => ends.source),
    receive(there, ends.destination),
  ]);
  expect(found).toEqual({ guest: 'destination' });
  expect(answered).toEqual({ guest: 'destination' });
  expect(here.calls).toEqual(['remove']);
});

test('docs/embedding.md has the example as it is', () => {
  const page = readFileSync(join(repositoryRoot, 'docs/embedding.md'), 'utf8');
  const file = join(repositoryRoot, 'examples/move-guest.ts');
  const code = readFileSync(file, 'utf8').replace("'../src/index.ts'", "'pagelane'");
  const fromImports = code.slice(code.indexOf('import '));
  expect(page).toContain(basename(file));
  expect(page).toContain(`\`\`\`ts\n${fromImports}\`\`\`\n`);
});
