import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { waitUntil } from './lab/processes.ts';

/*
 * QEMU's two ends of a migration channel, as sockets that a test drives byte by byte.
 */

/** Return-path message SHUT: 0 says that the destination has everything. */
export function shut(status: number): Uint8Array {
  return Uint8Array.of(0, 1, 0, 4, 0, 0, 0, status);
}

/** A source QEMU: connects and writes a migration stream. */
export class FakeSource implements AsyncDisposable {
  readonly #socket: Socket;
  readonly #received: Buffer[] = [];
  #isClosed = false;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('data', (bytes) => this.#received.push(bytes));
    socket.on('error', () => {}); // 'close' follows
    socket.on('close', () => {
      this.#isClosed = true;
    });
  }

  static async connect(path: string): Promise<FakeSource> {
    const socket = connect({ path });
    await once(socket, 'connect');
    return new FakeSource(socket);
  }

  /** What came on the return path. */
  received(): Uint8Array {
    return new Uint8Array(Buffer.concat(this.#received));
  }

  /** The peer closed the channel, or it broke: QEMU would let the guest run on. */
  isClosed(): boolean {
    return this.#isClosed;
  }

  /** Resolves when the channel has taken the bytes: many of them only if somebody reads. */
  write(bytes: Uint8Array): Promise<void> {
    return new Promise((resolve) => this.#socket.write(bytes, () => resolve()));
  }

  /** Closes as QEMU does when it has written everything, or has given up. */
  close(): void {
    this.#socket.destroySoon();
  }

  async untilClosed(timeoutMs: number): Promise<void> {
    await waitUntil('the channel of the source QEMU to close', () => this.#isClosed, { timeoutMs });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#socket.destroy();
  }
}

/** A destination QEMU: listens and collects the stream. */
export class FakeDestination implements AsyncDisposable {
  readonly #server: Server;
  readonly #received: Buffer[] = [];
  /** What came on channels beside the first. */
  readonly #others: { readonly received: Buffer[]; readonly socket: Socket; isClosed: boolean }[] =
    [];
  #receivedBytes = 0;
  #socket: Socket | undefined;
  #hasEnded = false;
  #isClosed = false;

  private constructor(server: Server) {
    this.#server = server;
    server.on('connection', (socket: Socket) => {
      if (this.#socket !== undefined) {
        this.#takeOther(socket);
        return;
      }
      this.#socket = socket;
      socket.on('data', (bytes) => {
        this.#received.push(bytes);
        this.#receivedBytes += bytes.length;
      });
      socket.on('error', () => {}); // 'close' follows
      socket.on('end', () => {
        this.#hasEnded = true;
      });
      socket.on('close', () => {
        this.#isClosed = true;
      });
    });
  }

  static async listen(path: string): Promise<FakeDestination> {
    const server = createServer({ allowHalfOpen: true }).listen(path);
    await once(server, 'listening');
    return new FakeDestination(server);
  }

  received(): Uint8Array {
    return new Uint8Array(Buffer.concat(this.#received));
  }

  /** Channels beside the first: what came on each, and whether it is over. */
  others(): { readonly received: Uint8Array; readonly isClosed: boolean }[] {
    return this.#others.map(({ received, isClosed }) => {
      return { received: new Uint8Array(Buffer.concat(received)), isClosed };
    });
  }

  /** Closes the channels beside the first, as a QEMU does that expects none. */
  dropOthers(): void {
    for (const { socket } of this.#others) socket.destroy();
  }

  #takeOther(socket: Socket): void {
    const other = { received: [] as Buffer[], socket, isClosed: false };
    this.#others.push(other);
    socket.on('data', (bytes) => other.received.push(bytes));
    socket.on('error', () => {}); // 'close' follows
    socket.on('end', () => socket.end());
    socket.on('close', () => {
      other.isClosed = true;
    });
  }

  /** Waits until so many bytes of the stream are here. */
  async untilBytes(count: number, timeoutMs: number): Promise<void> {
    await waitUntil(
      `the destination QEMU to have ${count} bytes`,
      () => this.#receivedBytes >= count,
      { timeoutMs },
    );
  }

  async untilClosed(timeoutMs: number): Promise<void> {
    const what = 'the channel of the destination QEMU to close';
    await waitUntil(what, () => this.#isClosed || this.#hasEnded, { timeoutMs });
  }

  /** Writes on the return path. */
  write(bytes: Uint8Array): void {
    this.#socket!.write(bytes);
  }

  /** Closes the channel: QEMU has loaded everything, or has given up. */
  close(): void {
    this.#socket!.destroySoon();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#socket?.destroy();
    this.#server.close();
  }
}
