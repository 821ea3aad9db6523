#!/usr/bin/env node
import { readFileSync } from 'node:fs';
import { setFlagsFromString } from 'node:v8';
import { codeOf, messageOf } from '../index.ts';
import { adviceOn } from './advice.ts';
import { bench } from './bench.ts';
import { gather } from './gather.ts';
import { isInterrupt } from './interrupt.ts';
import { keygen } from './keygen.ts';
import { ls } from './ls.ts';
import { UsageError } from './options.ts';
import { park } from './park.ts';
import { path } from './path.ts';
import { receive } from './receive.ts';
import { print } from './report.ts';
import { send } from './send.ts';
import { set } from './set.ts';
import { staging } from './staging.ts';
import { status } from './status.ts';
import { printable } from './table.ts';

const HELP = `pagelane moves a running virtual machine over every network path there is.

Usage: pagelane COMMAND [options]

  send       the source's side of one migration
  receive    the destination's side of one migration
  keygen     write a new shared key

  park       a whole virtual machine into intermediaries, with no destination yet
  gather     and back into a QEMU, anywhere
  staging    what is at intermediaries: ls, rm

  bench      made-up memory through all that a migration goes through

  ls         the migrations whose processes run here
  path       the paths of one of them: ls, add, rm
  set        change its limits

  status     whose the guest is, by the journals of a hand-over

"pagelane COMMAND --help" shows a command's options. "pagelane --version" shows the version.
`;

type Command = (args: readonly string[]) => number | Promise<number>;
const COMMANDS: Readonly<Record<string, Command>> = {
  bench,
  send,
  receive,
  keygen,
  park,
  gather,
  staging,
  ls,
  path,
  set,
  status,
};

/* Chosen by us */

/**
 * Work after which V8 compiles a function anew, 30 times its default. In a migration of a second
 * its compiler took a sixth of the processor time and brought nothing; in a longer one it still
 * comes.
 */
const COMPILE_AFTER = 2_000_000;

async function main(args: readonly string[]): Promise<number> {
  setFlagsFromString(`--interrupt-budget=${COMPILE_AFTER}`);
  // A listener of ours keeps Node from opening its debugger on SIGUSR1, which would show guest
  // memory.
  process.on('SIGUSR1', () => {});
  const [name, ...rest] = args;
  if (name === '--version') {
    const file = new URL('../../package.json', import.meta.url);
    const { version } = JSON.parse(readFileSync(file, 'utf8')) as { version: string };
    print(`${version}\n`);
    return 0;
  }
  if (name === undefined || name === '--help' || name === 'help') {
    print(HELP);
    return name === undefined ? 2 : 0;
  }
  const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  if (command === undefined) throw new UsageError(`there is no command "${name}"`);
  return await command(rest);
}

/** What is told here: what ends a command that has no session. */
function explain(error: unknown): number {
  if (error instanceof UsageError) {
    process.stderr.write(`pagelane: ${error.message}; see "pagelane --help"\n`);
    return 2;
  }
  // What fails in send and receive is told there, with the place of the guest.
  const code = isInterrupt(error) ? 'ERR_CANCELLED' : codeOf(error);
  const advice = adviceOn(code);
  const toDo = advice === undefined ? '' : `\n  to do: ${advice}`;
  process.stderr.write(`pagelane: ${code}: ${printable(messageOf(error))}${toDo}\n`);
  if (code === 'ERR_CANCELLED') return 130;
  return code === 'ERR_POSTCOPY_PAUSED' ? 7 : 1;
}

main(process.argv.slice(2)).then(
  (code) => process.exit(code),
  (error: unknown) => process.exit(explain(error)),
);
