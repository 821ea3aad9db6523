import type { PathAddress } from '../address.ts';
import { type PagelaneError, ProtocolError } from '../errors.ts';
import type { MappedMemory } from '../page/loaded-memory.ts';
import { defaultStoreBytes } from '../page/store.ts';
import { setThreads, type ThreadOptions, type ThreadsInUse } from '../page/threads.ts';
import type { PathReport } from '../path/path.ts';
import { type ConnectOptions, connectSession } from '../session/connect.ts';
import type { SessionEvent } from '../session/events.ts';
import type { IncomingMessage, Lane } from '../session/lane.ts';
import { type Listener, type ListenOptions, listenForSessions } from '../session/listener.ts';
import type { Session } from '../session/session.ts';
import { decodeBlocks, decodeOpen, MessageKind } from '../stream/message.ts';
import { DestinationStream } from './destination.ts';
import { IncomingGuest } from './guest-destination.ts';
import { checkGuestLayout, decodeOpenGuest } from './guest-message.ts';
import type { MoveOptions, WarmOptions } from './guest-options.ts';
import { IncomingQuestion } from './guest-recovery.ts';
import type { GuestResult } from './guest-result.ts';
import { checkMove, GuestSource } from './guest-source.ts';
import { decodeHandover, isHandoverKind } from './handover-message.ts';
import type { GatherSettings } from './page-gatherer.ts';
import { Tally } from './progress.ts';
import { type SourceOptions, SourceStream } from './source.ts';
import type { StreamParts } from './stream.ts';

/** How a migration is accepted. */
export interface AcceptOptions {
  /** Ends the wait for one. */
  readonly signal?: AbortSignal;
  /**
   * Most bytes of pages that are kept for the source, so that it need not send them again.
   * @default a quarter of the memory that is free
   */
  readonly storeBytes?: number;
  /**
   * RAM blocks that are read again when QEMU has loaded everything, from the files that it maps for
   * them, and compared with what was decoded, before the source hears of QEMU's success.
   *
   * QEMU must have been started with `-S`: the guest may not write to its memory before that, and
   * where a page differs it is thrown away and the source's runs on.
   * @default none
   */
  readonly verify?: readonly MappedMemory[];
  /** How pages are gathered that the source has staged. */
  readonly gather?: GatherSettings;
}

/** Paths and lanes between two hosts, and the migrations on them. */
export class MigrationSession {
  readonly #session: Session;
  readonly #threads: ThreadsInUse;

  constructor(session: Session, threads: ThreadsInUse) {
    this.#session = session;
    this.#threads = threads;
  }

  /** Name of the session, the same at both ends. */
  get id(): string {
    return this.#session.id;
  }

  /**
   * Settles when the session is over: with what ended it, or undefined after a clean close. Never
   * rejects.
   */
  get ended(): Promise<PagelaneError | undefined> {
    return this.#session.ended;
  }

  /** Begins a migration from here: write QEMU's stream into it, read the return path from it. */
  openMigration(options: SourceOptions = {}): SourceStream {
    const parts = this.#parts(this.#session.openLane());
    return new SourceStream(parts, options);
  }

  /**
   * Waits for the peer to begin a migration.
   *
   * @throws {ProtocolError} ERR_MESSAGE If the peer begins with something else.
   * @throws The signal's reason, or what ended the session.
   */
  async acceptMigration(options: AcceptOptions = {}): Promise<DestinationStream> {
    const { signal, storeBytes, verify = [], gather = {} } = options;
    const lane = await this.#session.acceptLane({ ...(signal && { signal }) });
    const first = await this.#nextMessage(lane);
    if (first.payload[0] !== MessageKind.Open) {
      throw new ProtocolError('ERR_MESSAGE', 'Migration does not begin with an open message');
    }
    const { name } = decodeOpen(first.payload);
    first.release();
    const parts = { name, storeBytes: storeBytes ?? defaultStoreBytes(), verify, gather };
    return new DestinationStream(this.#parts(lane), parts);
  }

  /**
   * Moves a guest whose memory is the caller's to the peer, which must `acceptGuest`.
   *
   * @returns How it ended; never rejects. Unless `guest` is "destination" it runs on here, or, if
   *   that is "unknown", is paused until `recoverGuest` has found out.
   * @throws {RangeError} If an option is out of its range, or the session has no lane left.
   */
  migrateGuest(options: MoveOptions): Promise<GuestResult> {
    checkMove(options);
    const parts = this.#parts(this.#session.openLane());
    return new GuestSource(parts, { ...options, move: options }).run();
  }

  /**
   * Copies the memory of a guest to the peer, which must `acceptGuest` and keep it: a migration
   * that follows sends only what is different then. The guest may run meanwhile.
   *
   * @returns How it ended; never rejects.
   */
  warmGuest(options: WarmOptions): Promise<GuestResult> {
    return new GuestSource(this.#parts(this.#session.openLane()), options).run();
  }

  /**
   * Waits for the peer to send a guest, or to ask whose one is.
   *
   * @throws {ProtocolError} ERR_MESSAGE If the peer begins with something else.
   * @throws The signal's reason, or what ended the session.
   */
  async acceptGuest(
    options: { readonly signal?: AbortSignal } = {},
  ): Promise<IncomingGuest | IncomingQuestion> {
    const lane = await this.#session.acceptLane(options);
    const parts = this.#parts(lane);
    const first = await this.#nextMessage(lane);
    const { payload } = first;
    try {
      if (isHandoverKind(payload[0]!)) return new IncomingQuestion(lane, decodeHandover(payload));
      if (payload[0] !== MessageKind.OpenGuest) {
        throw new ProtocolError('ERR_MESSAGE', 'The peer does not begin with a guest');
      }
      const open = decodeOpenGuest(payload);
      const second = await this.#nextMessage(lane);
      if (second.payload[0] !== MessageKind.Blocks) {
        throw new ProtocolError('ERR_MESSAGE', 'A guest does not begin with its blocks');
      }
      const layout = decodeBlocks(second.payload);
      second.release();
      checkGuestLayout(layout);
      return new IncomingGuest(parts, open, layout);
    } finally {
      first.release();
    }
  }

  /** A lane for the messages of a hand-over that began on another session. */
  openHandover(): Lane {
    return this.#session.openLane();
  }

  /** Adds a path to the session; only who dialled can. */
  addPath(address: PathAddress): Promise<void> {
    return this.#session.addPath(address);
  }

  /**
   * Removes a path once what it carries has arrived; it is not opened again.
   *
   * @throws {RangeError} If there is no such path open, or no other one.
   */
  removePath(id: number): Promise<void> {
    return this.#session.removePath(id);
  }

  /** Limits what is sent over all paths together; undefined for no limit. */
  setMaxBandwidth(bytesPerSecond: number | undefined): void {
    this.#session.maxBytesPerSecond = bytesPerSecond;
  }

  /**
   * Limits what is sent over one path; undefined for no limit.
   *
   * @throws {RangeError} If there is no such path open.
   */
  setPathMaxBandwidth(id: number, bytesPerSecond: number | undefined): void {
    this.#session.setPathMax(id, bytesPerSecond);
  }

  /** Every path there is or was. */
  pathReports(): PathReport[] {
    return this.#session.pathReports();
  }

  /** What happens to the paths and the session. */
  events(): AsyncIterable<SessionEvent> {
    return this.#session.events();
  }

  /** Ends the session once everything sent has arrived. */
  close(): Promise<void> {
    return this.#session.close();
  }

  /** Ends the session at once and tells the peer why. */
  fail(error: PagelaneError): void {
    this.#session.fail(error);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #parts(lane: Lane): StreamParts {
    return {
      session: this.#session,
      lane,
      tally: new Tally(),
      threads: this.#threads,
      now: () => performance.now(),
    };
  }

  #nextMessage(lane: Lane): Promise<IncomingMessage> {
    return new Promise((resolve, reject) => {
      lane.onMessage = (message) => {
        // The lane holds what follows until the migration listens.
        lane.onMessage = undefined;
        resolve(message);
      };
      this.#session.ended.then((error) =>
        reject(
          error ?? new ProtocolError('ERR_MESSAGE', 'Session closed before a migration began'),
        ),
      );
    });
  }
}

/** Accepts sessions, any number of them on one port. */
export class MigrationListener {
  readonly #listener: Listener;
  readonly #threads: ThreadsInUse;

  constructor(listener: Listener, threads: ThreadsInUse) {
    this.#listener = listener;
    this.#threads = threads;
  }

  get host(): string {
    return this.#listener.host;
  }

  /** The port in use; the system's choice if 0 was asked for. */
  get port(): number {
    return this.#listener.port;
  }

  /** Hears of connections that were turned away, for the log. */
  set onRefused(hear: (error: PagelaneError) => void) {
    this.#listener.onRefused = hear;
  }

  /** The next session. Rejects with the signal's reason. */
  async accept(options: { readonly signal?: AbortSignal } = {}): Promise<MigrationSession> {
    return new MigrationSession(await this.#listener.accept(options), this.#threads);
  }

  close(): Promise<void> {
    return this.#listener.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/**
 * Opens a session to a host that listens.
 *
 * Resolves with the first path; the others join as they can, and what becomes of them is an event.
 *
 * @throws {PathError} ERR_PATH_… If no path could be opened.
 * @throws {RemoteError} If the listener refused, with its code.
 * @throws {RangeError | ThreadError} What `setThreads` throws, before anything is sent.
 */
export async function connect(options: ConnectOptions & ThreadOptions): Promise<MigrationSession> {
  const threads = setThreads(options);
  return new MigrationSession(await connectSession(options), threads);
}

/**
 * Listens for sessions.
 *
 * @throws {PathError} ERR_PATH_LISTEN If the address cannot be listened on.
 * @throws {RangeError | ThreadError} What `setThreads` throws, before anything is listened on.
 */
export async function listen(options: ListenOptions & ThreadOptions): Promise<MigrationListener> {
  const threads = setThreads(options);
  return new MigrationListener(await listenForSessions(options), threads);
}

/**
 * Moves a guest whose memory is the caller's: `session.migrateGuest`.
 *
 * ```ts
 * await migrate({ source: memory, dirtyLog, session, downtimeMs: 50, pause, resume });
 * ```
 */
export function migrate(
  options: MoveOptions & { readonly session: MigrationSession },
): Promise<GuestResult> {
  return options.session.migrateGuest(options);
}
