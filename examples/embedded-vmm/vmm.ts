/*
 * A hypervisor that holds a guest, takes guests from others and gives its own away
 *
 *   1. begin     whose is the guest? The journal knows, or the destination it went to   begin
 *   2. serve     a guest comes, or another hypervisor asks where its guest is           serve
 *   3. migrate   this guest goes                                                        migrate
 */
import { join } from 'node:path';
import {
  connect,
  FileJournal,
  formatBytes,
  type GuestHooks,
  type GuestResult,
  type IncomingGuest,
  IncomingQuestion,
  type Journal,
  listen,
  type MigrationSession,
  messageOf,
  parseHostPort,
  type RoundFacts,
  recoverGuest,
  type Security,
} from '../../src/index.ts';
import { type DirtyLogKind, openDirtyLog } from './dirty-log.ts';
import { Guest, isGuestIn, isMemoryIn } from './guest.ts';

/** What it is told when it is started. */
export interface VmmOptions {
  /** Holds the journal: on a disk. */
  readonly stateDir: string;
  /** Holds memory and registers: on /dev/shm. */
  readonly memoryDir: string;
  readonly memoryBytes: number;
  readonly pagesPerSecond: number;
  readonly dirtyLog: DirtyLogKind;
  readonly downtimeMs: number;
  /** Whether it begins without a guest, and waits for one. */
  readonly isIncoming: boolean;
  /** How long a session that has lost its paths waits for one. */
  readonly pathTimeoutMs: number;
  readonly security: Security;
  /** @default a file in `stateDir` */
  readonly journal?: Journal;
  /** @default nobody */
  readonly say?: (text: string) => void;
}

export class Vmm implements AsyncDisposable {
  readonly #options: VmmOptions;
  readonly #journal: Journal;
  readonly #say: (text: string) => void;
  readonly #ending = new AbortController();
  #guest: Guest | undefined;
  #isBusy = false;

  constructor(options: VmmOptions) {
    this.#options = options;
    this.#journal = options.journal ?? new FileJournal(join(options.stateDir, 'journal'));
    this.#say = options.say ?? (() => {});
  }

  /** The guest, if it is here. */
  get guest(): Guest | undefined {
    return this.#guest;
  }

  /** Whether a migration is under way, in either direction. */
  get isBusy(): boolean {
    return this.#isBusy;
  }

  /**
   * Whether it is not known whose the guest is: it was committed, and the destination has not said
   * what became of it.
   */
  isUndecided = false;

  /** Finds out whether there is a guest here, after a crash too, and runs it then. */
  async begin(): Promise<void> {
    if ((await this.#journal.read()) === undefined) {
      if (!this.#options.isIncoming) await this.#runNew();
      return;
    }
    await this.#recover();
  }

  /** Listens for guests, and for questions; returns the port. */
  async serve(address: string): Promise<number> {
    const { security, pathTimeoutMs: resumeTimeoutMs } = this.#options;
    const { signal } = this.#ending;
    const listener = await listen({ ...parseHostPort(address), security, resumeTimeoutMs });
    const accepting = async (): Promise<void> => {
      await using _ = listener;
      for (;;) this.#serveSession(await listener.accept({ signal }));
    };
    accepting().catch((error: unknown) => this.#sayUnlessEnding('cannot listen', error));
    return listener.port;
  }

  /**
   * Moves the guest to another hypervisor.
   *
   * @param address `HOST:PORT`.
   * @returns How it ended. If it is not known whose the guest is, that is found out first.
   */
  async migrate(address: string): Promise<GuestResult> {
    const guest = this.#guest;
    if (guest === undefined || this.#isBusy) throw new Error('There is no guest to migrate');
    this.#isBusy = true;
    try {
      await using session = await this.#connect(address);
      const result = await session.migrateGuest({
        name: 'guest',
        source: guest.memory,
        dirtyLog: openDirtyLog(this.#options.dirtyLog, guest),
        downtimeMs: this.#options.downtimeMs,
        pause: () => guest.pause(),
        resume: () => guest.run(),
        throttle: (percent) => guest.throttle(percent),
        deviceState: () => guest.state(),
        discard: () => this.#discard(),
        journal: this.#journal,
        context: { destination: address },
        onRound: (round) => this.#say(describe(round)),
      });
      if (result.guest === 'unknown') await this.#recover();
      return result;
    } finally {
      this.#isBusy = false;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ending.abort();
    await this.#guest?.[Symbol.asyncDispose]();
  }

  /** A guest that begins its life here; or that did, and nobody ever migrated. */
  async #runNew(): Promise<void> {
    const { memoryDir } = this.#options;
    const isNew = !isGuestIn(memoryDir);
    this.#guest = this.#openGuest(this.#options.memoryBytes);
    if (isNew) this.#guest.begin(Date.now() % 1e9);
    await this.#guest.run();
  }

  /** Goes on by the journal: the guest runs here then, or it is somewhere else. */
  async #recover(): Promise<void> {
    const entry = await this.#journal.read();
    if (entry === undefined) return;
    const address = entry.context['destination'];
    this.isUndecided = true;
    const recovered = await recoverGuest({
      journal: this.#journal,
      hooks: this.#hooks(),
      connect: () => this.#connect(String(address)),
      signal: this.#ending.signal,
      say: this.#say,
    });
    this.isUndecided = false;
    // The journal is about who owns the guest. That it was running here does not survive us.
    if (recovered?.guest === entry.side) await this.#runHere();
  }

  #hooks(): GuestHooks {
    return {
      resume: () => this.#runHere(),
      start: () => this.#runHere(),
      discard: () => this.#discard(),
      isRunning: async () => this.#guest?.isRunning ?? false,
    };
  }

  async #runHere(): Promise<void> {
    this.#guest ??= this.#openGuest(this.#options.memoryBytes);
    await this.#guest.run();
  }

  /** The guest is not here: what it ran on goes, and its memory stays for its return. */
  async #discard(): Promise<void> {
    const guest = this.#guest ?? this.#openGuest(this.#options.memoryBytes);
    this.#guest = undefined;
    await guest.forget();
    await guest[Symbol.asyncDispose]();
  }

  #openGuest(memoryBytes: number): Guest {
    const { memoryDir, pagesPerSecond } = this.#options;
    return new Guest(memoryDir, { memoryBytes, pagesPerSecond });
  }

  #connect(address: string): Promise<MigrationSession> {
    const { security, pathTimeoutMs: resumeTimeoutMs } = this.#options;
    return connect({ paths: [parseHostPort(address)], security, resumeTimeoutMs });
  }

  /** Everything that comes over one session, one after the other. */
  async #serveSession(session: MigrationSession): Promise<void> {
    const { signal } = this.#ending;
    try {
      for (;;) {
        const incoming = await session.acceptGuest({ signal });
        if (incoming instanceof IncomingQuestion) this.#answer(incoming);
        else await this.#receive(incoming);
      }
    } catch (error) {
      this.#sayUnlessEnding('session ended', error);
    }
  }

  #answer(question: IncomingQuestion): void {
    question
      .answer({ journal: this.#journal, hooks: this.#hooks() })
      .catch((error: unknown) => this.#sayUnlessEnding('cannot answer', error));
  }

  async #receive(incoming: IncomingGuest): Promise<void> {
    const { memoryBytes, memoryDir } = this.#options;
    const why = this.#whyNotReceived(incoming);
    if (why !== undefined) {
      incoming.refuse('ERR_VMM_REFUSED', why);
      return;
    }
    const holdsEarlier = isMemoryIn(memoryDir);
    const guest = this.#openGuest(memoryBytes);
    const { memory } = guest;
    if (incoming.isWarm) {
      await incoming.keep({ memory, holdsEarlier });
      await guest[Symbol.asyncDispose]();
      return;
    }
    this.#isBusy = true;
    this.#guest = guest;
    // Now, and not while the guest stands still.
    guest.begin(0);
    await guest.prepare();
    const result = await incoming.receive({
      memory,
      holdsEarlier,
      load: (state) => guest.load(state),
      start: () => guest.run(),
      discard: () => this.#discard(),
      journal: this.#journal,
    });
    this.#isBusy = false;
    if (result.guest === 'destination') this.#say('guest came, and runs');
    else {
      this.#say(`guest did not come: ${result.error?.code}: ${result.error?.message}`);
      if (this.#guest === guest) await this.#discard();
    }
  }

  #whyNotReceived({ layout, isWarm }: IncomingGuest): string | undefined {
    if (this.#isBusy || (this.#guest !== undefined && !isWarm)) return 'there is a guest already';
    const [block] = layout.blocks;
    const { memoryBytes } = this.#options;
    if (layout.blocks.length === 1 && block?.usedBytes === memoryBytes) return undefined;
    return `its memory has not ${memoryBytes} bytes`;
  }

  #sayUnlessEnding(what: string, error: unknown): void {
    if (!this.#ending.signal.aborted) this.#say(`${what}: ${messageOf(error)}`);
  }
}

function describe({ round, pages, wireBytes, durationMs, dirtyPages }: RoundFacts): string {
  const took = `${formatBytes(wireBytes)} in ${durationMs.toFixed(0)} ms`;
  return `round ${round}: ${pages} pages, ${took}; ${dirtyPages} written meanwhile`;
}
