import { expect } from 'vitest';
import {
  BOUND_MS,
  Commands,
  ended,
  type Failure,
  failureOf,
  resultOf,
} from '../support/command.ts';
import { type Guest, type GuestOptions, startGuest } from '../support/lab/guest.ts';
import { beginTo, configure, listenAt, type MigrationSettings } from '../support/lab/migrate.ts';
import type { RunningProcess } from '../support/lab/processes.ts';
import { waitUntil } from '../support/lab/processes.ts';

/* Chosen by us */
const BOOT_TIMEOUT_MS = 60_000;
const MEMORY_MIB = 128;

/** So slow that QEMU is in its first round as long as any test needs. */
const BYTES_PER_SECOND = 4 * 1024 * 1024;

/** So soon an end gives up that has lost the other. */
const RESUME_SECONDS = 5;

/** A guest that runs and is moved, in vain, again and again. */
export async function startLasting(): Promise<Guest> {
  const workload = { fill: 48, rate: 500, content: 'random' } as const;
  const guest = await startGuest({ memoryMiB: MEMORY_MIB, workload });
  try {
    await guest.waitFor(/READY/, BOOT_TIMEOUT_MS);
    return guest;
  } catch (error) {
    await guest.stop();
    throw error;
  }
}

/** A migration that will not succeed, and what takes part in it. */
export class Attempt implements AsyncDisposable {
  readonly commands = new Commands();
  readonly source: Guest;
  destination!: Guest;
  sender!: RunningProcess;
  receiver!: RunningProcess;
  readonly #eventsBefore: number;

  private constructor(source: Guest) {
    this.source = source;
    this.#eventsBefore = source.qmp.events.length;
  }

  /** Starts everything and lets QEMU begin. */
  static async begin(
    source: Guest,
    { guest = {}, settings = {} }: { guest?: GuestOptions; settings?: MigrationSettings } = {},
  ): Promise<Attempt> {
    const attempt = new Attempt(source);
    try {
      await attempt.#begin(guest, settings);
      return attempt;
    } catch (error) {
      await attempt[Symbol.asyncDispose]();
      throw error;
    }
  }

  async #begin(guest: GuestOptions, settings: MigrationSettings): Promise<void> {
    const { commands, source } = this;
    const waits = ['--resume-timeout', `${RESUME_SECONDS}s`];
    const words = ['--output', 'ndjson', '--interval', '50ms', ...waits];
    this.destination = await startGuest({ memoryMiB: MEMORY_MIB, ...guest, isIncoming: true });
    const { destination } = this;
    const parameters = { 'max-bandwidth': BYTES_PER_SECOND, ...settings.parameters };
    // The source was configured for the attempt before.
    const capabilities = { multifd: false, ...settings.capabilities };
    await configure({ source, destination }, { capabilities, parameters });
    await listenAt(destination, { uri: `unix:${commands.in}` });
    const { receiver, port } = await commands.receive(words);
    this.receiver = receiver;
    this.sender = await commands.send(port, words);
    await beginTo(source, { uri: `unix:${commands.out}` });
  }

  /** Waits until guest memory goes over the wire and arrives. */
  async untilMemoryFlows(): Promise<void> {
    for (const [end, process] of [
      ['send', this.sender],
      ['receive', this.receiver],
    ] as const) {
      const flows = (): boolean => /"phase":"precopy".*"raw":[1-9]/.test(process.stdout());
      await waitUntil(`${end} to carry memory`, flows, { timeoutMs: BOUND_MS });
    }
  }

  /** Waits until the source QEMU knows that it failed, and its guest has gone on. */
  async untilGuestRunsOn(): Promise<void> {
    const since = this.#eventsBefore;
    await this.source.qmp.waitForMigration(['failed', 'cancelled'], { since, timeoutMs: BOUND_MS });
    await this.source.waitForCounter(this.source.counter() + 1, BOUND_MS);
    expect(this.source.complaints()).toEqual([]);
  }

  /** How `send` ended: exit code, and what it told. */
  async sent(): Promise<{ exitCode: number | string; failure: Failure }> {
    return await endOf(this.sender);
  }

  async received(): Promise<{ exitCode: number | string; failure: Failure }> {
    return await endOf(this.receiver);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.commands[Symbol.asyncDispose]();
    await this.destination?.stop();
  }
}

async function endOf(process: RunningProcess) {
  const { code, stdout, stderr } = await ended(process);
  const failure = failureOf(stderr);
  // What a program is told is what a person is told.
  const { error, side, guest } = resultOf(stdout);
  expect(error).toMatchObject({ code: failure.code, phase: failure.phase });
  expect(side).toBe(failure.side);
  expect(failure.guest.toLowerCase()).toContain(guest);
  return { exitCode: code, failure };
}
