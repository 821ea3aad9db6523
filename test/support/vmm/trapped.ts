/*
 * examples/embedded-vmm with traps: at the points that its trap file names the process kills
 * itself, or fails. The file has lines, each for one time:
 *
 *   kill WHERE      SIGKILL
 *   fail WHERE      an error
 *
 * WHERE is "before journal STATE", "after journal STATE settled", "before send WORD",
 * "before HOOK".
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Guest } from '../../../examples/embedded-vmm/guest.ts';
import { main } from '../../../examples/embedded-vmm/main.ts';
import type { VmmOptions } from '../../../examples/embedded-vmm/vmm.ts';
import { FileJournal, type Journal, type JournalEntry } from '../../../src/index.ts';
import { HandoverKind } from '../../../src/migration/handover-message.ts';
import { Lane, type OutgoingMessage } from '../../../src/session/lane.ts';
import { TRAP_FILE } from './traps.ts';

const HOOKS = ['run', 'pause', 'forget', 'load', 'state'] as const;

let trapPath = '';

function reach(where: string): void {
  if (!existsSync(trapPath)) return;
  const traps = readFileSync(trapPath, 'utf8').split('\n');
  const index = traps.findIndex((trap) => trap === `kill ${where}` || trap === `fail ${where}`);
  if (index === -1) return;
  const [trap] = traps.splice(index, 1);
  writeFileSync(trapPath, traps.join('\n'));
  if (trap?.startsWith('kill')) process.kill(process.pid, 'SIGKILL');
  throw new Error(`Trap: ${where}`);
}

class TrappedJournal implements Journal {
  readonly #journal: Journal;

  constructor(journal: Journal) {
    this.#journal = journal;
  }

  read(): Promise<JournalEntry | undefined> {
    return this.#journal.read();
  }

  async write(entry: JournalEntry): Promise<void> {
    const what = `journal ${entry.state}${entry.isSettled ? ' settled' : ''}`;
    reach(`before ${what}`);
    await this.#journal.write(entry);
    reach(`after ${what}`);
  }
}

function trapSends(): void {
  const words = new Map(Object.entries(HandoverKind).map(([word, kind]) => [kind, word]));
  const send = Lane.prototype.send;
  Lane.prototype.send = function (this: Lane, message: OutgoingMessage): number {
    const word = words.get(message.buffer[message.start]!);
    if (word !== undefined) reach(`before send ${word}`);
    const sequence = send.call(this, message);
    if (word !== undefined) reach(`after send ${word}`);
    return sequence;
  };
}

function trapHooks(): void {
  const guest = Guest.prototype as unknown as Record<string, (...args: unknown[]) => unknown>;
  for (const name of HOOKS) {
    const hook = guest[name]!;
    guest[name] = function (this: unknown, ...args: unknown[]): unknown {
      reach(`before ${name}`);
      const done = hook.apply(this, args);
      if (!(done instanceof Promise)) {
        reach(`after ${name}`);
        return done;
      }
      return done.then((value: unknown) => {
        reach(`after ${name}`);
        return value;
      });
    };
  }
}

function change(options: VmmOptions): VmmOptions {
  trapPath = join(options.stateDir, TRAP_FILE);
  trapSends();
  trapHooks();
  return {
    ...options,
    journal: new TrappedJournal(new FileJournal(join(options.stateDir, 'journal'))),
  };
}

process.exit(await main(process.argv.slice(2), change));
