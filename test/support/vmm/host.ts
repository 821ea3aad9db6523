import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { repositoryRoot } from '../lab/binaries.ts';
import { type RunningProcess, run, startProcess, waitUntil } from '../lab/processes.ts';
import { TRAP_FILE } from './traps.ts';

/* Chosen by us */

/** No step of a hypervisor takes so long, however busy the machine is. */
const BOUND_MS = 20_000;

/** The stand-in hypervisor with traps, compiled; it is gone in the end. */
export class BuiltVmm implements Disposable {
  readonly program: string;
  readonly #folder: string;

  private constructor(folder: string) {
    this.#folder = folder;
    this.program = join(folder, 'test/support/vmm/trapped.js');
  }

  static async build(): Promise<BuiltVmm> {
    // Inside the package, where the addon is found.
    mkdirSync(join(repositoryRoot, '.build'), { recursive: true });
    const folder = mkdtempSync(join(repositoryRoot, '.build', 'vmm-'));
    const config = {
      extends: '../../tsconfig.dev.json',
      compilerOptions: { rootDir: '../..', outDir: '.' },
      include: ['../../examples/embedded-vmm', '../../test/support/vmm/trapped.ts'],
    };
    writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify(config));
    const compiler = join(repositoryRoot, 'node_modules', '.bin', 'tsc');
    await run([compiler, '-p', join(folder, 'tsconfig.json')], { timeoutMs: 60_000 });
    return new BuiltVmm(folder);
  }

  [Symbol.dispose](): void {
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

/** What a hypervisor says of itself. */
export interface Status {
  readonly runs: boolean;
  readonly isBusy: boolean;
}

/** A host with a hypervisor, which can be killed and started again. */
export class VmmHost implements AsyncDisposable {
  readonly name: string;
  readonly registersPath: string;
  readonly #words: readonly string[];
  readonly #folder: string;
  readonly #listens: boolean;
  #process: RunningProcess | undefined;
  #port = 0;
  /** Characters of its output that were looked at. */
  #heard = 0;

  constructor(
    { program }: { readonly program: string },
    options: { name: string; folder: string; words: readonly string[]; listens?: boolean },
  ) {
    this.#listens = options.listens ?? true;
    this.name = options.name;
    this.#folder = join(options.folder, options.name);
    mkdirSync(this.#folder, { recursive: true });
    this.registersPath = join(this.#folder, 'registers');
    const common = ['run', '--state-dir', this.#folder, ...options.words];
    this.#words = [process.execPath, program, ...common];
  }

  get address(): string {
    return `127.0.0.1:${this.#port}`;
  }

  /** Starts it, on the port that it had, and waits until it knows whether its guest is here. */
  async start(): Promise<void> {
    const listening = this.#listens ? ['--listen', `127.0.0.1:${this.#port}`] : [];
    const words = [...this.#words, ...listening];
    this.#heard = 0;
    this.#process = startProcess(words, { hasInput: true });
    await this.hear(/^(guest runs|no guest is here)$/m);
  }

  /** Waits until it listens, and can be told things. */
  async listening(): Promise<void> {
    this.#port = Number((await this.hear(/^listening on port (\d+)$/m))[1]);
  }

  /** Sets traps: see trapped.ts. */
  trap(...lines: readonly string[]): void {
    writeFileSync(join(this.#folder, TRAP_FILE), lines.join('\n'));
  }

  tell(line: string): void {
    this.#process!.write(`${line}\n`);
  }

  /** Waits for something that it says, after what it was heard to say last. */
  async hear(pattern: RegExp): Promise<RegExpExecArray> {
    const process = this.#process!;
    const found = await waitUntil(
      `${pattern} from ${this.name}, which said: ${this.story()}`,
      () => {
        const match = pattern.exec(process.stdout().slice(this.#heard));
        if (match !== null) return match;
        if (!process.isRunning()) throw new Error(`${this.name} ended: ${this.story()}`);
        return undefined;
      },
      { timeoutMs: BOUND_MS },
    );
    this.#heard += found.index + found[0].length;
    return found;
  }

  async status(): Promise<Status> {
    this.tell('status');
    const [line, state] = await this.hear(/^guest: (runs|none).*$/m);
    return { runs: state === 'runs', isBusy: line.includes('under way') };
  }

  /** Has the guest look at all of its memory. */
  async check(): Promise<string> {
    this.tell('check');
    return (await this.hear(/^check: (memory is right|.*)/m))[1]!;
  }

  kill(): void {
    this.#process!.signal('SIGKILL');
  }

  /** Waits until it has ended: its exit status, or the signal. */
  async ended(): Promise<number | string> {
    return await this.#process!.exit(BOUND_MS);
  }

  /** All that it said. */
  story(): string {
    return `${this.#process?.stdout()}${this.#process?.stderr()}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#process?.stop();
  }
}
