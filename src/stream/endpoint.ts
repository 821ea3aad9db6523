import { chmodSync, lstatSync, readFileSync, unlinkSync } from 'node:fs';
import { connect, createServer, type Server, Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { formatQemuAddress, type QemuAddress } from '../address.ts';
import { EndpointError, messageOf } from '../errors.ts';
import { native } from '../native.ts';

/*
 * Where QEMU's bytes come in and go out. Bytes are read into one buffer that is used again and
 * again:
 * a chunk is valid until the reader says it is done with it.
 */

/* Chosen by us */

/** Bytes read at once; small enough to stay in the processor's cache until they are cut. */
const READ_BYTES = 256 * 1024;

/** Channels beside the first: QEMU opens at most 255 for multifd, and one for preempt. */
const OTHERS_MAX = 256;

/** How long QEMU may take to close its other channels. */
const OTHERS_CLOSE_MS = 10_000;

/** Takes what QEMU sends. */
export interface ChannelReader {
  /** Bytes, valid until `done` is called; nothing more comes before that. */
  chunk(bytes: Uint8Array, done: () => void): void;
  /** QEMU closed its end. */
  end(): void;
  /**
   * QEMU opened a further channel (postcopy-preempt, multifd). A QEMU that loses one of them before
   * this one may wait for ever (10.0, 2 of 28): it must be read until QEMU closes it.
   *
   * @default It is read, and what comes is forgotten.
   */
  join?(channel: QemuChannel): void;
}

/** One open migration channel to QEMU, both ways. */
export class QemuChannel {
  /** As it is written on a command line. */
  readonly address: string;
  /** Settles when the channel is closed, with the error that closed it if there was one. */
  readonly closed: Promise<EndpointError | undefined>;
  /** True if nobody is there: what is written is discarded, and nothing will ever confirm it. */
  readonly isNull: boolean;
  #isClosed = false;
  readonly #output: Duplex;
  readonly #input: Duplex;
  #reader: ChannelReader | undefined;
  readonly #joining: QemuChannel[] = [];
  #hasEnded = false;

  private constructor(
    address: string,
    makeInput: (onread: (bytes: Uint8Array) => boolean) => Duplex,
    makeOutput: (input: Duplex) => Duplex = (input) => input,
  ) {
    this.address = address;
    this.isNull = address === 'null:';
    this.#input = makeInput((bytes) => this.#receive(bytes));
    this.#output = makeOutput(this.#input);
    this.#input.pause();
    this.closed = this.#watch();
  }

  /** Connects to a socket that QEMU listens on. */
  static async connect(
    where: QemuAddress,
    { timeoutMs, signal }: { timeoutMs: number; signal?: AbortSignal },
  ): Promise<QemuChannel> {
    const address = formatQemuAddress(where);
    if (where.kind === 'stdio') return QemuChannel.stdio();
    if (where.kind === 'null') return new QemuChannel(address, makeDiscarding);
    const target =
      where.kind === 'unix' ? { path: where.path } : { host: where.host, port: where.port };
    const channel = new QemuChannel(address, (take) =>
      connect({ ...target, onread: reusedBuffer(take) }),
    );
    await connected(channel.#input, address, timeoutMs, signal);
    return channel;
  }

  /** The process's own stdin and stdout, when QEMU runs us by `exec:`. */
  static stdio(): QemuChannel {
    try {
      return new QemuChannel(
        '-',
        (take) => new Socket(withOnread({ fd: 0, readable: true, writable: false }, take)),
        () => new Socket({ fd: 1, readable: false, writable: true }),
      );
    } catch (cause) {
      throw new EndpointError(
        'ERR_QEMU_STDIO',
        'Cannot use stdin and stdout as migration channel: they are no pipes or sockets; ' +
          'run from QEMU as "exec:pagelane …", or use --qemu unix:PATH',
        '-',
        cause,
      );
    }
  }

  /** Takes over an accepted connection, to read it into a buffer of our own. */
  static adopt(accepted: Socket, address: string): QemuChannel {
    // Node offers a reused read buffer only to sockets that it constructs with one; a socket that a
    // server accepted hands over its handle. Tried on Node 20 and 22.
    const holder = accepted as unknown as { _handle: unknown };
    const handle = holder._handle;
    holder._handle = null;
    return new QemuChannel(address, (take) => new Socket(withOnread({ handle }, take)));
  }

  /** True if QEMU can have no other channel of the same address: stdin and stdout are one. */
  get isOnly(): boolean {
    return this.address === '-';
  }

  /** True once `closed` has settled. */
  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** Begins to read. Call once. */
  start(reader: ChannelReader): void {
    this.#reader = reader;
    this.#input.on('end', () => this.#finish());
    this.#input.on('close', () => this.#finish());
    this.#input.resume();
    // Sockets made from a handle or descriptor do not read before they are asked.
    this.#input.read(0);
    for (const other of this.#joining.splice(0)) this.join(other);
  }

  /** Reads what comes, and forgets it. */
  discard(): void {
    if (this.#reader === undefined) this.start({ chunk: (_, done) => done(), end: () => {} });
  }

  /** Gives a further channel of the same QEMU to who reads this one. */
  join(other: QemuChannel): void {
    if (this.#reader === undefined) this.#joining.push(other);
    else if (this.#reader.join === undefined) other.discard();
    else this.#reader.join(other);
  }

  /**
   * Writes bytes, which must stay as they are until `done`; `done` also comes when the channel
   * breaks.
   */
  write(bytes: Uint8Array, done: () => void): void {
    this.#output.write(bytes, done);
  }

  /**
   * Lets QEMU write no more. What it has written still comes, and then the end.
   *
   * @returns False if that cannot be had: only a unix socket can.
   */
  refuseMore(): boolean {
    const { _handle: handle } = this.#input as unknown as { _handle?: { fd?: number } | null };
    const fd = handle?.fd ?? -1;
    if (fd < 0 || !native.refuseMore(fd)) return false;
    // The end that comes of it is ours: QEMU may still be told something.
    this.#input.allowHalfOpen = true;
    return true;
  }

  /** Closes the channel once everything written has been taken. */
  end(): void {
    this.#output.end(() => this.destroy());
  }

  /** Closes the channel at once. QEMU sees its peer go. */
  destroy(): void {
    this.#input.destroy();
    this.#output.destroy();
  }

  #receive(bytes: Uint8Array): boolean {
    let isDone = false;
    let mustResume = false;
    this.#reader!.chunk(bytes, () => {
      isDone = true;
      if (mustResume) this.#input.resume();
    });
    mustResume = !isDone;
    return isDone;
  }

  #finish(): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    this.#reader!.end();
  }

  #watch(): Promise<EndpointError | undefined> {
    return new Promise((resolve) => {
      let failure: EndpointError | undefined;
      const fail = (cause: Error): void => {
        failure ??= new EndpointError(
          'ERR_QEMU_CLOSED',
          `Migration channel ${this.address} broke: ${messageOf(cause)}`,
          this.address,
          cause,
        );
      };
      this.#input.on('error', fail);
      this.#output.on('error', fail);
      this.#output.on('close', () => {
        this.#input.destroy();
        this.#isClosed = true;
        resolve(failure);
      });
    });
  }
}

/** Waits for QEMU to connect to a socket of ours. */
export class QemuListener {
  readonly address: string;
  readonly #server: Server;
  /** Channels beside the first. */
  readonly #others = new Set<QemuChannel>();
  readonly #first: Promise<QemuChannel>;

  private constructor(server: Server, address: string) {
    this.address = address;
    this.#server = server;
    this.#first = new Promise((resolve) => {
      let isTaken = false;
      server.on('connection', (socket: Socket) => {
        if (isTaken) this.#join(socket);
        else resolve(QemuChannel.adopt(socket, address));
        isTaken = true;
      });
    });
  }

  /**
   * Listens where QEMU will connect to.
   *
   * @throws {EndpointError} ERR_QEMU_LISTEN If the address is taken or not allowed.
   */
  static async listen(where: QemuAddress): Promise<QemuListener> {
    const address = formatQemuAddress(where);
    if (where.kind === 'stdio' || where.kind === 'null') {
      throw new TypeError(`Cannot listen on ${address}`);
    }
    if (where.kind === 'unix') await removeStale(where.path, address);
    const server = createServer({ pauseOnConnect: true });
    const listener = new QemuListener(server, address);
    await new Promise<void>((resolve, reject) => {
      server.once('error', (cause) => reject(listenError(address, cause)));
      const target =
        where.kind === 'unix' ? { path: where.path } : { host: where.host, port: where.port };
      server.listen(target, resolve);
    });
    if (where.kind === 'unix') chmodSync(where.path, 0o600);
    return listener;
  }

  /**
   * Resolves with QEMU's channel.
   *
   * @throws {EndpointError} ERR_QEMU_TIMEOUT If QEMU has not connected within `timeoutMs`.
   */
  async accept({
    timeoutMs,
    signal,
  }: {
    timeoutMs: number;
    signal?: AbortSignal;
  }): Promise<QemuChannel> {
    const late = new EndpointError(
      'ERR_QEMU_TIMEOUT',
      `QEMU did not connect to ${this.address} within ${timeoutMs} ms`,
      this.address,
    );
    return await before(this.#first, timeoutMs, late, signal);
  }

  /**
   * Stops listening; open channels stay. Resolves when QEMU has closed those beside the first, as
   * it does once it has lost that one, or after 10 s: a process that ends before may leave it
   * waiting. Those that are late are closed here, if the first is.
   */
  async close(): Promise<void> {
    this.#server.close();
    const others = [...this.#others];
    if (others.length === 0) return;
    for (const channel of others) channel.discard();
    const first = await this.#first;
    let late: NodeJS.Timeout | undefined;
    const patience = new Promise<void>((resolve) => {
      late = setTimeout(() => {
        if (first.isClosed) for (const channel of others) channel.destroy();
        resolve();
      }, OTHERS_CLOSE_MS);
    });
    await Promise.race([patience, Promise.all(others.map(({ closed }) => closed))]);
    clearTimeout(late);
  }

  #join(socket: Socket): void {
    if (this.#others.size >= OTHERS_MAX) {
      socket.destroy();
      return;
    }
    const channel = QemuChannel.adopt(socket, this.address);
    this.#others.add(channel);
    channel.closed.then(() => this.#others.delete(channel));
    this.#first.then((first) => first.join(channel));
  }
}

function listenError(address: string, cause: Error): EndpointError {
  return new EndpointError(
    'ERR_QEMU_LISTEN',
    `Cannot listen on ${address}: ${messageOf(cause)}`,
    address,
    cause,
  );
}

/** Removes a unix socket that nobody listens on; leaves everything else alone. */
async function removeStale(path: string, address: string): Promise<void> {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found === undefined) return;
  if (!found.isSocket()) {
    throw listenError(address, new Error('a file that is no socket is there'));
  }
  const isAlive = isListedAsBound(path) || (await answers(path));
  if (isAlive) throw listenError(address, new Error('another process listens there'));
  unlinkSync(path);
}

/**
 * True if the kernel lists the path. A listener must not notice that it was looked for: it would
 * take the connection for QEMU's.
 */
function isListedAsBound(path: string): boolean {
  try {
    const lines = readFileSync('/proc/net/unix', 'utf8').split('\n');
    return lines.some((line) => line.endsWith(` ${path}`));
  } catch {
    return false; // Without /proc only a connection tells.
  }
}

/** For a socket that was bound by another name, or in another network namespace. */
function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connect({ path });
    probe.once('connect', () => {
      probe.destroy();
      resolve(true);
    });
    probe.once('error', () => resolve(false));
  });
}

function makeDiscarding(): Duplex {
  return new Duplex({
    read() {},
    write(_chunk, _encoding, done) {
      done();
    },
  });
}

async function connected(
  socket: Duplex,
  address: string,
  timeoutMs: number,
  signal: AbortSignal | undefined,
): Promise<void> {
  const opened = new Promise<void>((resolve, reject) => {
    socket.once('connect', resolve);
    socket.once('error', (cause) =>
      reject(
        new EndpointError(
          'ERR_QEMU_CONNECT',
          `Cannot connect to QEMU at ${address}: ${messageOf(cause)}; is it started with -incoming?`,
          address,
          cause,
        ),
      ),
    );
  });
  const late = new EndpointError(
    'ERR_QEMU_TIMEOUT',
    `QEMU at ${address} did not answer within ${timeoutMs} ms`,
    address,
  );
  try {
    await before(opened, timeoutMs, late, signal);
  } catch (error) {
    socket.destroy();
    throw error;
  }
}

/** `promise`, or `late` after `timeoutMs`, or the signal's reason. */
async function before<T>(
  promise: Promise<T>,
  timeoutMs: number,
  late: Error,
  signal: AbortSignal | undefined,
): Promise<T> {
  signal?.throwIfAborted();
  let timer: NodeJS.Timeout | undefined;
  let onAbort: (() => void) | undefined;
  const stop = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(late), timeoutMs);
    onAbort = () => reject(signal!.reason);
    signal?.addEventListener('abort', onAbort, { once: true });
  });
  try {
    return await Promise.race([promise, stop]);
  } finally {
    clearTimeout(timer);
    if (onAbort !== undefined) signal?.removeEventListener('abort', onAbort);
  }
}

interface Onread {
  readonly buffer: Uint8Array;
  callback(bytesRead: number, buffer: Uint8Array): boolean;
}

function reusedBuffer(take: (bytes: Uint8Array) => boolean): Onread {
  return {
    // No Buffer: its `slice` makes no copy, and what is kept of a chunk must be one.
    buffer: new Uint8Array(READ_BYTES),
    callback: (bytesRead, buffer) => take(buffer.subarray(0, bytesRead)),
  };
}

/** Socket options with a reused read buffer; Node's types know it only for `connect`. */
function withOnread(
  options: object,
  take: (bytes: Uint8Array) => boolean,
): ConstructorParameters<typeof Socket>[0] {
  return { ...options, onread: reusedBuffer(take) } as ConstructorParameters<typeof Socket>[0];
}
