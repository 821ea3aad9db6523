/*
 * node main.js run --state-dir DIR …: a hypervisor with one guest, told what to do by lines on its
 * standard input. README.md beside it explains the parts.
 *
 * Ends with 0 when all went well, with 1 if a migration failed and the guest ran on here, with 6 if
 * it is not known whose the guest is.
 */
import { mkdirSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { messageOf, parseDuration, parseSize, readKeyFile } from '../../src/index.ts';
import { parseDirtyLogKind } from './dirty-log.ts';
import { Vmm, type VmmOptions } from './vmm.ts';

const USAGE = `Usage: node main.js run --state-dir DIR [options]

  --state-dir DIR       the journal: tells after a crash whose the guest is
  --memory-dir DIR      the guest's memory and registers, on /dev/shm  [the state dir]
  --memory SIZE         [256MiB]
  --dirty-rate PAGES    pages that the guest writes in a second  [2000]
  --dirty-log KIND      who tells which: own, write-protect or hash  [own]
  --downtime TIME       how long the guest may stand still  [50ms]
  --listen HOST:PORT    takes guests
  --incoming            begins without a guest
  --migrate-to HOST:PORT  moves the guest there, and ends when it is gone
  --after TIME          lets it run here so long before  [1s]
  --path-timeout TIME   how long to wait for a path that was lost  [5s]
  --key FILE            protects what is sent; without it, nothing does

Lines on standard input: migrate HOST:PORT | check | status | quit
`;

const EXIT = { done: 0, failed: 1, usage: 2, unknown: 6 } as const;

const OPTIONS = {
  'state-dir': { type: 'string' },
  'memory-dir': { type: 'string' },
  memory: { type: 'string', default: '256MiB' },
  'dirty-rate': { type: 'string', default: '2000' },
  'dirty-log': { type: 'string', default: 'own' },
  downtime: { type: 'string', default: '50ms' },
  listen: { type: 'string' },
  incoming: { type: 'boolean', default: false },
  'migrate-to': { type: 'string' },
  after: { type: 'string', default: '1s' },
  'path-timeout': { type: 'string', default: '5s' },
  key: { type: 'string' },
} as const;

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}

function readWords(words: string[]) {
  const { values, positionals } = parseArgs({
    args: words,
    options: OPTIONS,
    allowPositionals: true,
  });
  const stateDir = values['state-dir'];
  if (positionals.join() !== 'run' || stateDir === undefined) throw new SyntaxError('run what?');
  return { ...values, stateDir };
}

type Values = ReturnType<typeof readWords>;

function optionsOf(values: Values): VmmOptions {
  const { stateDir, key } = values;
  return {
    stateDir,
    memoryDir: values['memory-dir'] ?? stateDir,
    memoryBytes: parseSize(values.memory),
    pagesPerSecond: Number(values['dirty-rate']),
    dirtyLog: parseDirtyLogKind(values['dirty-log']),
    downtimeMs: parseDuration(values.downtime),
    isIncoming: values.incoming,
    pathTimeoutMs: parseDuration(values['path-timeout']),
    security: key === undefined ? { kind: 'none' } : { kind: 'key', key: readKeyFile(key) },
    say,
  };
}

/** Reads what is to be done from the command line, and does it to the end. */
export async function main(
  words: string[],
  change: (options: VmmOptions) => VmmOptions = (options) => options,
): Promise<number> {
  let values: Values;
  let options: VmmOptions;
  try {
    values = readWords(words);
    options = change(optionsOf(values));
  } catch (error) {
    process.stderr.write(`${messageOf(error)}\n\n${USAGE}`);
    return EXIT.usage;
  }
  mkdirSync(options.stateDir, { recursive: true });
  mkdirSync(options.memoryDir, { recursive: true });
  return await new Program(new Vmm(options), values).run();
}

/** One life of the hypervisor. */
class Program {
  readonly #vmm: Vmm;
  readonly #values: Values;
  #status: number = EXIT.done;
  #end: () => void = () => {};

  constructor(vmm: Vmm, values: Values) {
    this.#vmm = vmm;
    this.#values = values;
  }

  async run(): Promise<number> {
    const told = new Promise<void>((resolve) => {
      this.#end = resolve;
    });
    process.on('SIGTERM', this.#end).on('SIGINT', this.#end);
    this.#work().catch((error: unknown) => {
      say(`failed: ${messageOf(error)}`);
      this.#status = EXIT.failed;
      this.#end();
    });
    await told;
    if (this.#vmm.isUndecided) this.#status = EXIT.unknown;
    await this.#vmm[Symbol.asyncDispose]();
    return this.#status;
  }

  async #work(): Promise<void> {
    const { listen, after, 'migrate-to': address } = this.#values;
    await this.#vmm.begin();
    say(this.#vmm.guest === undefined ? 'no guest is here' : 'guest runs');
    if (listen !== undefined) say(`listening on port ${await this.#vmm.serve(listen)}`);
    this.#hear();
    if (address !== undefined && this.#vmm.guest !== undefined) {
      await sleep(parseDuration(after));
      await this.#migrate(address);
    }
    const isNothingLeft = listen === undefined && this.#vmm.guest === undefined;
    if (isNothingLeft) this.#end();
  }

  #hear(): void {
    const lines = createInterface({ input: process.stdin });
    lines.on('line', (line) => {
      this.#obey(line.trim()).catch((error: unknown) => say(`failed: ${messageOf(error)}`));
    });
    process.stdin.unref?.();
  }

  async #obey(line: string): Promise<void> {
    const [verb, address] = line.split(' ');
    if (verb === 'migrate' && address !== undefined) await this.#migrate(address);
    else if (verb === 'check') await this.#check();
    else if (verb === 'status') this.#tellStatus();
    else if (verb === 'quit') this.#end();
    else if (line !== '') say(`cannot do "${line}"`);
  }

  async #migrate(address: string): Promise<void> {
    const result = await this.#vmm.migrate(address);
    const { guest, downtimeMs, error, heldPages } = result;
    if (error === undefined) {
      const held = heldPages > 0 ? `, ${heldPages} pages were there already` : '';
      say(`migrated to ${address}: stood still for ${downtimeMs.switchover} ms${held}`);
      return;
    }
    say(`not migrated: ${error.code}: ${error.message}; guest: ${guest}`);
    if (this.#vmm.guest !== undefined) this.#status = EXIT.failed;
  }

  #tellStatus(): void {
    const { guest, isBusy } = this.#vmm;
    const state = guest?.isRunning === true ? 'runs' : 'none';
    say(`guest: ${state}${isBusy ? ', migration under way' : ''}`);
  }

  async #check(): Promise<void> {
    const checked = await this.#vmm.guest?.check();
    if (checked === undefined) say('check: no guest is here');
    else if (checked.wrongPage === -1) say(`check: memory is right at step ${checked.step}`);
    else say(`check: page ${checked.wrongPage} is wrong at step ${checked.step}`);
  }
}
