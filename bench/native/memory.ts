import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { repositoryRoot } from '../../test/support/lab/binaries.ts';

const KERNELS = /^(cpu|zero_page|fill_page|delta|similarity|hash).*\.cc$/;

/** Compiles `memory.cc` and the kernels it runs; returns the program. */
function build(): string {
  const program = join(repositoryRoot, '.build/bench/memory');
  const folder = join(repositoryRoot, 'native/kernel');
  const kernels = readdirSync(folder).filter((file) => KERNELS.test(file));
  const flags = '-std=c++20 -O3 -fno-exceptions -DNDEBUG -DXXH_INLINE_ALL -Inative -o'.split(' ');
  const sources = kernels.map((file) => join(folder, file));
  execFileSync('g++', [...flags, program, 'bench/native/memory.cc', ...sources], {
    cwd: repositoryRoot,
    stdio: 'inherit',
  });
  return program;
}

let program: string | undefined;

/** Memory of a process without JavaScript, and what it does on it; `memory.cc` has the commands. */
export class MemoryProgram {
  readonly #child: ChildProcess;
  readonly #answers: AsyncIterator<string>;

  /** @param pages Page size that is asked of Linux. */
  constructor(byteCount: number, pages: 'small' | 'huge') {
    program ??= build();
    this.#child = spawn(program, [String(byteCount / 1024), pages], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    this.#answers = createInterface(this.#child.stdout!)[Symbol.asyncIterator]();
  }

  /** Runs a command; returns nanoseconds, of the median round. */
  async run(command: string, word = '-', rounds = 1): Promise<number> {
    this.#child.stdin!.write(`${command} ${word} ${rounds}\n`);
    const { value, done } = await this.#answers.next();
    if (done) throw new Error(`Cannot measure memory: the program ended at "${command} ${word}"`);
    return Number(value);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.stdin!.end();
  }
}
