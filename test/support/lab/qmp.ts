import { EventEmitter, once } from 'node:events';
import { createConnection, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { within } from './processes.ts';

/* Chosen by us */
const EXECUTE_TIMEOUT_MS = 30_000;
const RETRY_MS = 20;

/** Arguments of a QMP command, or the data of an event. */
export type QmpObject = Readonly<Record<string, unknown>>;

/** Something QEMU told without being asked. */
export interface QmpEvent {
  readonly event: string;
  readonly data: QmpObject;
  /** Host time at which it happened, in milliseconds. */
  readonly timeMs: number;
}

/** Which event is waited for, and how long. */
export interface EventWait {
  /** Further condition on its data. */
  readonly where?: (data: QmpObject) => boolean;
  /** Index into `events` to search from. @default 0: events that came already count */
  readonly since?: number;
  readonly timeoutMs: number;
}

interface Message {
  readonly id?: number;
  readonly return?: unknown;
  readonly error?: { readonly class: string; readonly desc: string };
  readonly event?: string;
  readonly data?: QmpObject;
  readonly timestamp?: { readonly seconds: number; readonly microseconds: number };
}

/** A connection to a QEMU's monitor that keeps every event. */
export class Qmp implements AsyncDisposable {
  /** Every event since the connection was made, in order. */
  readonly events: QmpEvent[] = [];
  readonly #socket: Socket;
  readonly #name: string;
  readonly #arrivals = new EventEmitter().setMaxListeners(0);
  readonly #replies = new Map<number, (message: Message) => void>();
  #held = '';
  #nextId = 1;
  #isClosed = false;

  constructor(socket: Socket, name: string) {
    this.#socket = socket;
    this.#name = name;
    socket.setEncoding('utf8');
    socket.on('data', (text: string) => this.#receive(text));
    socket.on('error', () => {}); // 'close' follows
    socket.on('close', () => {
      this.#isClosed = true;
      this.#arrivals.emit('arrival');
      for (const reply of this.#replies.values()) reply(this.#closedMessage());
      this.#replies.clear();
    });
  }

  /**
   * Connects to the monitor at `path` and leaves negotiation mode.
   *
   * QEMU makes the socket shortly after it starts, so this waits for it.
   *
   * @param isAlive Ends the wait with an error once it returns false.
   */
  static async connect(
    path: string,
    { timeoutMs, isAlive = () => true }: { timeoutMs: number; isAlive?: () => boolean },
  ): Promise<Qmp> {
    const deadlineMs = performance.now() + timeoutMs;
    for (;;) {
      const socket = createConnection(path);
      try {
        await once(socket, 'connect');
        const qmp = new Qmp(socket, path);
        await qmp.execute('qmp_capabilities', {}, { timeoutMs });
        return qmp;
      } catch (cause) {
        socket.destroy();
        if (!isAlive()) throw new Error(`QEMU ended before its monitor ${path} was there`);
        if (performance.now() > deadlineMs) {
          throw new Error(`Waited ${timeoutMs} ms for the monitor ${path}`, { cause });
        }
        await sleep(RETRY_MS);
      }
    }
  }

  /**
   * Executes a command and returns its result.
   *
   * @throws {Error} If QEMU refuses it, with QEMU's words, or goes away.
   */
  async execute<T = unknown>(
    command: string,
    parameters: QmpObject = {},
    { timeoutMs = EXECUTE_TIMEOUT_MS }: { timeoutMs?: number } = {},
  ): Promise<T> {
    const id = this.#nextId++;
    const answered = new Promise<Message>((resolve) => {
      if (this.#isClosed) resolve(this.#closedMessage());
      else this.#replies.set(id, resolve);
    });
    this.#socket.write(`${JSON.stringify({ execute: command, arguments: parameters, id })}\n`);
    const message = await within(answered, timeoutMs, `QEMU to answer ${command}`);
    if (message.error !== undefined) throw new Error(`${command}: ${message.error.desc}`);
    return message.return as T;
  }

  /** Waits for an event, also one that has come already: see `since`. */
  async waitForEvent(
    name: string,
    { where = () => true, since = 0, timeoutMs }: EventWait,
  ): Promise<QmpEvent> {
    const find = () =>
      this.events.slice(since).find(({ event, data }) => event === name && where(data));
    const arrived = async (signal: AbortSignal) => {
      for (;;) {
        const event = find();
        if (event !== undefined) return event;
        if (this.#isClosed) throw new Error(`QEMU went away before event ${name}: ${this.#name}`);
        await once(this.#arrivals, 'arrival', { signal });
      }
    };
    const waiting = new AbortController();
    try {
      return await within(arrived(waiting.signal), timeoutMs, `event ${name} of ${this.#name}`);
    } finally {
      waiting.abort();
    }
  }

  /** Waits until the migration has one of `statuses`; needs the capability `events`. */
  async waitForMigration(
    statuses: readonly string[],
    { since = 0, timeoutMs }: { since?: number; timeoutMs: number },
  ): Promise<string> {
    const where = ({ status }: QmpObject) => statuses.includes(String(status));
    const waited = this.waitForEvent('MIGRATION', { where, since, timeoutMs });
    return String((await waited).data['status']);
  }

  /** Closes the connection; QEMU goes on. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#socket.destroy();
  }

  #receive(text: string): void {
    const lines = (this.#held + text).split('\n');
    this.#held = lines.pop()!;
    for (const line of lines) {
      if (line.trim() !== '') this.#dispatch(JSON.parse(line) as Message);
    }
  }

  #dispatch({ ...message }: Message): void {
    if (message.event !== undefined) {
      const { seconds, microseconds } = message.timestamp ?? { seconds: 0, microseconds: 0 };
      const timeMs = seconds * 1000 + microseconds / 1000;
      this.events.push({ event: message.event, data: message.data ?? {}, timeMs });
      this.#arrivals.emit('arrival');
    } else if (message.id !== undefined) {
      this.#replies.get(message.id)?.(message);
      this.#replies.delete(message.id);
    }
  }

  #closedMessage(): Message {
    return { error: { class: 'Closed', desc: `QEMU went away: ${this.#name}` } };
  }
}
