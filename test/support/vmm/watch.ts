import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { Register } from '../../../examples/embedded-vmm/registers.ts';

/* Chosen by us */
const LOOK_MS = 3;

/** A time during which a guest ran at one host. */
export interface Stint {
  readonly host: string;
  readonly startedMs: number;
  lastMs: number;
}

interface Watched {
  readonly host: string;
  readonly inode: number;
  readonly file: number;
}

/** Looks from outside at who runs a guest, and when, by the registers of its copies. */
export class RunWatch implements Disposable {
  readonly #paths: ReadonlyMap<string, string>;
  readonly #watched: Watched[] = [];
  readonly #stints: Stint[] = [];
  readonly #timer: NodeJS.Timeout;

  /** @param paths Of the file with the registers, for each host. */
  constructor(paths: ReadonlyMap<string, string>) {
    this.#paths = paths;
    this.#timer = setInterval(() => this.look(), LOOK_MS);
  }

  /** Every stint seen so far, in the order in which they began. */
  stints(): readonly Stint[] {
    this.look();
    return [...this.#stints].sort((one, other) => one.startedMs - other.startedMs);
  }

  /** Hosts at which the guest did something after a moment. */
  runningSince(moment: number): string[] {
    this.look();
    const found = this.#stints.filter(({ lastMs }) => lastMs > moment);
    return [...new Set(found.map(({ host }) => host))];
  }

  /** Two stints that overlap: the guest ran twice; undefined if it never did. */
  overlap(): [Stint, Stint] | undefined {
    const stints = this.stints();
    for (let index = 1; index < stints.length; index++) {
      const [one, other] = [stints[index - 1]!, stints[index]!];
      if (other.startedMs < one.lastMs) return [one, other];
    }
    return undefined;
  }

  /** Reads all there is; a file that was removed is read on, for whoever still has it. */
  look(): void {
    for (const [host, path] of this.#paths) this.#open(host, path);
    const registers = new Float64Array(4);
    for (const { host, file } of this.#watched) {
      readSync(file, registers, 0, registers.byteLength, 0);
      const startedMs = registers[Register.startedMs]!;
      if (startedMs === 0) continue;
      const lastMs = Math.max(startedMs, registers[Register.lastMs]!);
      const known = this.#stints.find(
        (stint) => stint.host === host && stint.startedMs === startedMs,
      );
      if (known === undefined) this.#stints.push({ host, startedMs, lastMs });
      else known.lastMs = Math.max(known.lastMs, lastMs);
    }
  }

  #open(host: string, path: string): void {
    let file: number;
    try {
      file = openSync(path, 'r');
    } catch {
      return; // None is there now.
    }
    const inode = fstatSync(file).ino;
    if (this.#watched.some((one) => one.inode === inode)) closeSync(file);
    else this.#watched.push({ host, inode, file });
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    for (const { file } of this.#watched) closeSync(file);
  }
}
