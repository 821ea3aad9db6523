import type { Socket } from 'node:net';
import { formatHostPort } from '../address.ts';
import { PagelaneError, PathError } from '../errors.ts';
import { FrameDecoder } from '../frame/decode.ts';
import type { Stage } from '../frame/header.ts';
import { LINGER_MS, READ_BYTES, READ_DIRECT_BYTES_MIN, READ_HEAD_BYTES } from './limits.ts';
import type { LinkHandlers, PathLink } from './link.ts';
import { lostError, securityError } from './secure.ts';

/** Handlers of a link that nobody has taken over yet: they drop everything. */
const NO_HANDLERS: LinkHandlers = {
  allocate: (bytes) => new Uint8Array(bytes),
  onFrame: () => {},
  onTurn: () => {},
  onWritable: () => {},
  onFault: () => {},
  onClosed: () => {},
};

/**
 * What every socket reads into. A read and its callback are one step of the event loop, so one
 * buffer serves all sockets, and stays in the cache.
 */
let readBuffer: Uint8Array | undefined;

/** What a socket reads a header into that long payloads come over: little of the next is copied. */
let headBuffer: Uint8Array | undefined;

/** What `net` wants to know in order to read into our buffer. */
export interface ReadOptions {
  readonly buffer: () => Uint8Array;
  readonly callback: (bytes: number, buffer: Uint8Array) => boolean;
}

/**
 * A connected socket that speaks frames.
 *
 * Made before its socket, because a socket must be told when it is made where to read to.
 */
export class SocketLink implements PathLink {
  local = '';
  remote = '';
  readonly #decoder: FrameDecoder;
  #socket: Socket | undefined;
  #handlers: LinkHandlers = NO_HANDLERS;
  /** The rest of a payload, while the socket reads right into it. */
  #direct: Uint8Array | undefined;
  #receivedBytes = 0;
  #error: PagelaneError | undefined;
  #isEnding = false;
  #isClosed = false;
  #isTurnDue = false;

  constructor() {
    this.#decoder = new FrameDecoder({
      allocate: (bytes) => this.#handlers.allocate(bytes),
      onFrame: (header, payload) => this.#handlers.onFrame(header, payload),
    });
  }

  /** Pass these to the socket's constructor if it takes them; else `attach` listens for data. */
  get readOptions(): ReadOptions {
    return {
      buffer: () => this.#nextBuffer(),
      callback: (bytes, buffer) => {
        this.#onBytes(bytes, buffer);
        return true;
      },
    };
  }

  /** Takes over a connected socket. */
  attach(socket: Socket, { hasReadOptions }: { hasReadOptions: boolean }): void {
    this.#socket = socket;
    this.local = formatEnd(socket.localAddress, socket.localPort);
    this.remote = formatEnd(socket.remoteAddress, socket.remotePort);
    socket.setNoDelay(true);
    socket.on('drain', () => this.#handlers.onWritable());
    socket.on('error', (error) => this.#onError(error));
    socket.on('end', () => this.#onEnd());
    socket.on('close', () => this.#onClose());
    if (!hasReadOptions) socket.on('data', (chunk) => this.#onChunk(chunk as Uint8Array));
  }

  get pendingBytes(): number {
    return this.#socket?.writableLength ?? 0;
  }

  get receivedBytes(): number {
    return this.#receivedBytes;
  }

  /** The bytes of a frame's header that is not complete. */
  get heldHeader(): Uint8Array {
    return this.#decoder.heldHeader;
  }

  get stage(): Stage {
    return this.#decoder.stage;
  }

  set stage(stage: Stage) {
    this.#decoder.stage = stage;
  }

  set handlers(handlers: LinkHandlers) {
    this.#handlers = handlers;
    if (this.#isClosed) setImmediate(() => this.#handlers.onClosed(this.#closeError()));
  }

  get handlers(): LinkHandlers {
    return this.#handlers;
  }

  send(bytes: Uint8Array): void {
    if (!this.#isEnding && this.#socket?.writable === true) this.#socket.write(bytes);
  }

  wake(): void {
    if (this.#isTurnDue) return;
    this.#isTurnDue = true;
    setImmediate(() => {
      this.#isTurnDue = false;
      if (!this.#isEnding && !this.#isClosed) this.#handlers.onTurn();
    });
  }

  end(): void {
    if (this.#isEnding) return;
    this.#isEnding = true;
    this.#decoder.stop();
    this.#socket?.end();
    setTimeout(() => this.#socket?.destroy(), LINGER_MS).unref();
  }

  destroy(): void {
    this.#isEnding = true;
    this.#decoder.stop();
    this.#socket?.destroy();
  }

  #nextBuffer(): Uint8Array {
    readBuffer ??= Buffer.allocUnsafeSlow(READ_BYTES);
    headBuffer ??= Buffer.allocUnsafeSlow(READ_HEAD_BYTES);
    const { missingBytes, payloadBytes } = this.#decoder;
    const isLong = payloadBytes >= READ_DIRECT_BYTES_MIN;
    this.#direct = isLong && missingBytes > 0 ? this.#decoder.missing : undefined;
    return this.#direct ?? (isLong ? headBuffer : readBuffer);
  }

  #onBytes(bytes: number, buffer: Uint8Array): void {
    if (buffer !== this.#direct) {
      this.#onChunk(buffer.subarray(0, bytes));
      return;
    }
    this.#receivedBytes += bytes;
    try {
      this.#decoder.filled(bytes);
    } catch (error) {
      this.#onFault(error);
    }
    this.wake();
  }

  #onChunk(chunk: Uint8Array): void {
    const isFirst = this.#receivedBytes === 0;
    this.#receivedBytes += chunk.length;
    try {
      if (isFirst && isTls(chunk)) throw this.#unexpectedTls();
      this.#decoder.push(chunk);
    } catch (error) {
      this.#onFault(error);
    }
    this.wake();
  }

  /** What the peer did wrong is its owner's to answer; what we did wrong is thrown. */
  #onFault(error: unknown): void {
    if (!(error instanceof PagelaneError)) throw error;
    this.#decoder.stop();
    this.#handlers.onFault(error);
  }

  #unexpectedTls(): PathError {
    return new PathError(
      'ERR_PATH_SECURITY',
      `Cannot open path with ${this.remote}: it speaks TLS, and this side was told not to ` +
        '(--insecure on one side only?)',
      this.remote,
    );
  }

  #onError(error: Error): void {
    const ends = { local: this.local, remote: this.remote };
    this.#error ??= securityError(error, this.remote) ?? lostError(ends, error);
  }

  /** An end that was not announced is a fault, wherever in a frame it comes. */
  #onEnd(): void {
    if (this.#isEnding) return;
    this.#error ??= lostError(this);
    this.#socket?.destroy();
  }

  #onClose(): void {
    this.#isClosed = true;
    this.#handlers.onClosed(this.#closeError());
  }

  #closeError(): PagelaneError | undefined {
    if (this.#error !== undefined || this.#isEnding) return this.#error;
    return lostError(this);
  }
}

/** Whether bytes begin a TLS handshake or alert; no frame of a handshake does. */
function isTls(bytes: Uint8Array): boolean {
  return (bytes[0] === 0x16 || bytes[0] === 0x15) && (bytes.length < 2 || bytes[1] === 0x03);
}

/** Writes an address without the prefix of an IPv4 address on an IPv6 socket. */
export function formatEnd(host: string | undefined, port: number | undefined): string {
  return formatHostPort((host ?? '?').replace(/^::ffff:/, ''), port ?? 0);
}
