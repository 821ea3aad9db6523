import { connect, type Socket } from 'node:net';
import { messageOf, PagelaneError } from '../errors.ts';

/* Chosen by us */
const TIMEOUT_MS = 30_000;
const LINE_CHARACTERS_MAX = 1024 * 1024;

interface Answer {
  readonly id?: number;
  readonly return?: unknown;
  readonly error?: { readonly desc?: string };
}

/** A connection to a QEMU's monitor (QMP), for commands. Its events are not kept. */
export class QmpClient implements Disposable {
  readonly #socket: Socket;
  readonly #path: string;
  readonly #answers = new Map<number, (answer: Answer) => void>();
  #held = '';
  #nextId = 1;

  private constructor(socket: Socket, path: string) {
    this.#socket = socket;
    this.#path = path;
    socket.setEncoding('utf8');
    socket.on('data', (text: string) => this.#read(text));
    socket.on('error', () => {}); // 'close' follows
    socket.on('close', () => this.#lose());
  }

  /**
   * Connects to a monitor's socket.
   *
   * @throws {PagelaneError} ERR_QMP If there is none, or it is busy with somebody else.
   */
  static async connect(path: string): Promise<QmpClient> {
    const socket = connect(path);
    const client = new QmpClient(socket, path);
    try {
      await new Promise<void>((resolve, reject) => {
        socket.once('connect', resolve);
        socket.once('error', reject);
      });
      await client.execute('qmp_capabilities');
      return client;
    } catch (cause) {
      socket.destroy();
      const text = `Cannot use the monitor of QEMU at ${path}: ${messageOf(cause)}`;
      throw new PagelaneError('ERR_QMP', text, { cause });
    }
  }

  /**
   * Executes a command.
   *
   * @throws {PagelaneError} ERR_QMP If QEMU refuses it, in its words; if it goes, or says nothing.
   */
  async execute(command: string, parameters: object = {}): Promise<unknown> {
    const id = this.#nextId++;
    let timer: NodeJS.Timeout | undefined;
    const answer = await new Promise<Answer>((resolve) => {
      this.#answers.set(id, resolve);
      timer = setTimeout(
        () => resolve({ error: { desc: `no answer within ${TIMEOUT_MS} ms` } }),
        TIMEOUT_MS,
      );
      if (this.#socket.destroyed) this.#lose();
      else
        this.#socket.write(`${JSON.stringify({ execute: command, arguments: parameters, id })}\n`);
    });
    clearTimeout(timer);
    this.#answers.delete(id);
    if (answer.error === undefined) return answer.return;
    const text = `QEMU at ${this.#path} refused ${command}: ${answer.error.desc ?? 'unknown'}`;
    throw new PagelaneError('ERR_QMP', text);
  }

  [Symbol.dispose](): void {
    this.#socket.destroy();
  }

  #read(text: string): void {
    const lines = (this.#held + text).split('\n');
    this.#held = lines.pop()!;
    if (this.#held.length > LINE_CHARACTERS_MAX) this.#socket.destroy();
    for (const line of lines) this.#take(line);
  }

  #take(line: string): void {
    try {
      const answer = JSON.parse(line) as Answer;
      if (answer.id !== undefined) this.#answers.get(answer.id)?.(answer);
    } catch {
      this.#socket.destroy();
    }
  }

  #lose(): void {
    for (const answer of this.#answers.values())
      answer({ error: { desc: 'the connection closed' } });
  }
}
