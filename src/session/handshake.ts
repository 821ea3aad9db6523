import { randomBytes } from 'node:crypto';
import type { Clock } from '../clock.ts';
import { PagelaneError, PathError, ProtocolError, RemoteError } from '../errors.ts';
import { encodeFrame } from '../frame/encode.ts';
import { type FrameHeader, FrameType, nameOf } from '../frame/header.ts';
import {
  decodeChallenge,
  decodeHello,
  decodeProof,
  encodeChallenge,
  encodeHello,
  encodeProof,
  type Hello,
  Intent,
} from '../frame/hello.ts';
import { NONCE_BYTES, PROTOCOL_VERSION } from '../frame/limits.ts';
import { decodeReason, encodeReason } from '../frame/reason.ts';
import type { LinkHandlers, PathLink } from '../path/link.ts';
import { isSameMac, proofMac, sessionSecret, type Transcript } from './proof.ts';

/*
 * The handshake of a path: docs/protocol.md, section 4
 *
 *   client  Hello       ->          state 'challenge'
 *           <- Challenge   server   state 'proof'
 *           Proof       ->          state 'welcome'
 *           <- Welcome, or Refuse instead of any answer
 *
 * Both halves are driven by the link's frames. What is welcomed is taken over from within the last
 * frame's call, because frames of the session may follow in the same chunk.
 */

/* Fixed by the protocol */
/** Versions spoken here, best first. */
export const VERSIONS: readonly number[] = [PROTOCOL_VERSION];

/** What a client knows when it opens a path. */
export interface ClientParts {
  readonly link: PathLink;
  readonly exporter: Uint8Array;
  readonly id: Uint8Array;
  /** Secret of the session to join; absent to open a new one. */
  readonly secret?: Uint8Array;
  readonly windowBytes: number;
  /** Whether the connection is protected: a better guess why it was closed. */
  readonly isSecure: boolean;
  readonly clock: Clock;
  readonly timeoutMs: number;
  readonly signal?: AbortSignal;
}

/** What a client has when its path was welcomed. */
export interface Welcomed {
  readonly secret: Uint8Array;
  readonly peerWindowBytes: number;
  readonly rttMs: number;
}

/**
 * Runs the client's half. The link is destroyed if the promise rejects.
 *
 * @param onWelcome Called before the promise settles: takes the link over.
 * @throws {RemoteError} If the server refused, with its code.
 * @throws {ProtocolError} ERR_HANDSHAKE, ERR_PROTOCOL_VERSION, ERR_FRAME_… If the server is wrong.
 * @throws {PathError} ERR_PATH_TIMEOUT, ERR_PATH_LOST, ERR_PATH_SECURITY If it does not answer.
 * @throws `signal.reason` If it is aborted.
 */
export function runClientHandshake(
  parts: ClientParts,
  onWelcome: (welcomed: Welcomed) => void,
): Promise<void> {
  return new Promise((resolve, reject) => {
    let isSettled = false;
    const onAbort = (): void => settle(parts.signal?.reason);
    const handshake = new ClientHandshake(parts, {
      onWelcome: (welcomed) => {
        settle(undefined);
        onWelcome(welcomed);
      },
      onFailed: (error) => settle(error),
    });
    const cancelTimer = parts.clock.after(parts.timeoutMs, () =>
      settle(timeoutError(parts, handshake.waitsFor)),
    );
    const settle = (error: unknown): void => {
      if (isSettled) return;
      isSettled = true;
      cancelTimer();
      parts.signal?.removeEventListener('abort', onAbort);
      if (error === undefined) {
        resolve();
      } else {
        parts.link.destroy();
        reject(error);
      }
    };
    if (parts.signal?.aborted === true) {
      onAbort();
      return;
    }
    parts.signal?.addEventListener('abort', onAbort);
    handshake.start();
  });
}

/** Behaviour that both halves share: only whole frames of the handshake matter. */
abstract class Handshake implements LinkHandlers {
  allocate(bytes: number): Uint8Array {
    return new Uint8Array(bytes);
  }

  onTurn(): void {}

  onWritable(): void {}

  onFrame(header: Readonly<FrameHeader>, payload: Uint8Array): void {
    try {
      this.take(header.type, payload);
    } catch (error) {
      if (!(error instanceof PagelaneError)) throw error;
      this.onFault(error);
    }
  }

  abstract onFault(error: PagelaneError): void;

  abstract onClosed(error: PagelaneError | undefined): void;

  protected abstract take(type: FrameType, payload: Uint8Array): void;
}

class ClientHandshake extends Handshake {
  readonly #parts: ClientParts;
  readonly #on: {
    readonly onWelcome: (welcomed: Welcomed) => void;
    readonly onFailed: (error: PagelaneError) => void;
  };
  readonly #nonce: Uint8Array = new Uint8Array(randomBytes(NONCE_BYTES));
  #waitsFor: FrameType = FrameType.Challenge;
  #transcript: Transcript | undefined;
  #secret: Uint8Array | undefined;
  #sentAtMs = 0;

  constructor(
    parts: ClientParts,
    on: {
      readonly onWelcome: (welcomed: Welcomed) => void;
      readonly onFailed: (error: PagelaneError) => void;
    },
  ) {
    super();
    this.#parts = parts;
    this.#on = on;
  }

  get waitsFor(): string {
    return nameOf(this.#waitsFor);
  }

  start(): void {
    const { link, id, secret } = this.#parts;
    link.handlers = this;
    const intent = secret === undefined ? Intent.New : Intent.Join;
    const hello = encodeHello({ intent, versions: VERSIONS, id, nonce: this.#nonce });
    link.send(encodeFrame(FrameType.Hello, { payload: hello }));
  }

  onFault(error: PagelaneError): void {
    this.#on.onFailed(error);
  }

  onClosed(error: PagelaneError | undefined): void {
    const { link, isSecure } = this.#parts;
    if (!isSecure && link.receivedBytes === 0) {
      const message =
        `Cannot open path to ${link.remote}: it was closed without an answer ` +
        '(does the other side expect TLS?)';
      this.#on.onFailed(new PathError('ERR_PATH_SECURITY', message, link.remote, error));
    } else {
      this.#on.onFailed(error ?? closedError(link));
    }
  }

  protected override take(type: FrameType, payload: Uint8Array): void {
    if (type === FrameType.Refuse) {
      const { code, message } = decodeReason(payload);
      throw new RemoteError(code === '' ? 'ERR_INTERNAL' : code, message, 'destination');
    }
    if (type !== this.#waitsFor) throw unexpected(type, this.#waitsFor);
    if (type === FrameType.Challenge) this.#onChallenge(payload);
    else this.#onWelcome(payload);
  }

  #onChallenge(payload: Uint8Array): void {
    const { link, id, exporter, secret, windowBytes, clock } = this.#parts;
    const { version, nonce } = decodeChallenge(payload);
    if (!VERSIONS.includes(version)) {
      const message = `Cannot speak version ${version}: ${VERSIONS.join(', ')} were offered`;
      throw new ProtocolError('ERR_PROTOCOL_VERSION', message);
    }
    const transcript = { id, clientNonce: this.#nonce, serverNonce: nonce, exporter };
    this.#transcript = transcript;
    this.#secret = secret ?? sessionSecret(transcript);
    this.#waitsFor = FrameType.Welcome;
    this.#sentAtMs = clock.now();
    const mac = proofMac(this.#secret, secret === undefined ? 'new' : 'join', transcript);
    link.send(encodeFrame(FrameType.Proof, { payload: encodeProof({ mac, windowBytes }) }));
  }

  #onWelcome(payload: Uint8Array): void {
    const { mac, windowBytes } = decodeProof(payload);
    const secret = this.#secret!;
    if (!isSameMac(mac, proofMac(secret, 'welcome', this.#transcript!))) {
      throw new ProtocolError('ERR_HANDSHAKE', 'Cannot trust Welcome: its proof is wrong');
    }
    const rttMs = this.#parts.clock.now() - this.#sentAtMs;
    this.#on.onWelcome({ secret, peerWindowBytes: windowBytes, rttMs });
  }
}

/** What a server knows when a connection has arrived. */
export interface ServerParts {
  readonly link: PathLink;
  readonly exporter: Uint8Array;
  readonly windowBytes: number;
  readonly clock: Clock;
  /**
   * Decides on a Hello.
   *
   * @returns The secret of the session to join; undefined for a new one.
   * @throws {PagelaneError} To refuse, with its code.
   */
  readonly admit: (hello: Hello) => Uint8Array | undefined;
  /**
   * Decides again when the proof is right.
   *
   * @returns What takes the link over, once Welcome was sent.
   * @throws {PagelaneError} To refuse, with its code.
   */
  readonly prepare: (proved: Proved) => () => void;
  /** The client could not prove what its Hello says. */
  readonly onWrongProof?: (hello: Hello) => void;
  /** The handshake is over: welcomed, or given up because of `error`. */
  readonly onFinished: (error?: PagelaneError) => void;
}

/** A path whose client has proved what it claims. */
export interface Proved extends Welcomed {
  readonly hello: Hello;
}

/** Runs the server's half; its time-out is the listener's. */
export function runServerHandshake(parts: ServerParts): void {
  parts.link.handlers = new ServerHandshake(parts);
}

class ServerHandshake extends Handshake {
  readonly #parts: ServerParts;
  #waitsFor: FrameType = FrameType.Hello;
  #hello: Hello | undefined;
  #knownSecret: Uint8Array | undefined;
  #transcript: Transcript | undefined;
  #sentAtMs = 0;

  constructor(parts: ServerParts) {
    super();
    this.#parts = parts;
  }

  onFault(error: PagelaneError): void {
    const { code, message } = error;
    const payload = encodeReason({ code, message });
    this.#parts.link.send(encodeFrame(FrameType.Refuse, { payload }));
    this.#parts.link.end();
    this.#parts.onFinished(error);
  }

  onClosed(error: PagelaneError | undefined): void {
    this.#parts.onFinished(error ?? closedError(this.#parts.link));
  }

  protected override take(type: FrameType, payload: Uint8Array): void {
    if (type !== this.#waitsFor) throw unexpected(type, this.#waitsFor);
    if (type === FrameType.Hello) this.#onHello(payload);
    else this.#onProof(payload);
  }

  #onHello(payload: Uint8Array): void {
    const { link, exporter, admit, clock } = this.#parts;
    const hello = decodeHello(payload);
    const version = hello.versions.find((offered) => VERSIONS.includes(offered));
    if (version === undefined) {
      const message = `Cannot speak versions ${hello.versions.join(', ')}: ${VERSIONS.join(', ')} is known`;
      throw new ProtocolError('ERR_PROTOCOL_VERSION', message);
    }
    this.#knownSecret = admit(hello);
    const nonce = new Uint8Array(randomBytes(NONCE_BYTES));
    const { id, nonce: clientNonce } = hello;
    this.#hello = hello;
    this.#transcript = { id, clientNonce, serverNonce: nonce, exporter };
    this.#waitsFor = FrameType.Proof;
    this.#sentAtMs = clock.now();
    const challenge = encodeChallenge({ version, nonce });
    link.send(encodeFrame(FrameType.Challenge, { payload: challenge }));
  }

  #onProof(payload: Uint8Array): void {
    const { link, windowBytes, clock, prepare, onWrongProof, onFinished } = this.#parts;
    const { mac, windowBytes: peerWindowBytes } = decodeProof(payload);
    const transcript = this.#transcript!;
    const hello = this.#hello!;
    const secret = this.#knownSecret ?? sessionSecret(transcript);
    const label = hello.intent === Intent.New ? 'new' : 'join';
    if (!isSameMac(mac, proofMac(secret, label, transcript))) {
      onWrongProof?.(hello);
      throw new ProtocolError('ERR_HANDSHAKE', 'Cannot open path: its proof is wrong');
    }
    const rttMs = clock.now() - this.#sentAtMs;
    const takeOver = prepare({ hello, secret, peerWindowBytes, rttMs });
    const welcome = encodeProof({ mac: proofMac(secret, 'welcome', transcript), windowBytes });
    link.send(encodeFrame(FrameType.Welcome, { payload: welcome }));
    onFinished();
    takeOver();
  }
}

function unexpected(type: FrameType, wanted: FrameType): ProtocolError {
  const message = `Cannot take ${nameOf(type)} in a handshake that waits for ${nameOf(wanted)}`;
  return new ProtocolError('ERR_HANDSHAKE', message);
}

function timeoutError({ link, timeoutMs }: ClientParts, waitsFor: string): PathError {
  const message = `Cannot open path to ${link.remote}: no ${waitsFor} after ${timeoutMs} ms`;
  return new PathError('ERR_PATH_TIMEOUT', message, link.remote);
}

function closedError({ remote }: PathLink): PathError {
  const message = `Cannot open path with ${remote}: it was closed in the handshake`;
  return new PathError('ERR_PATH_LOST', message, remote);
}
