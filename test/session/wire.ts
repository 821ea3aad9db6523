import { once } from 'node:events';
import net from 'node:net';
import { FrameDecoder } from '../../src/frame/decode.ts';
import { encodeFrame } from '../../src/frame/encode.ts';
import { encodeHeader, FrameType, nameOf } from '../../src/frame/header.ts';
import {
  decodeChallenge,
  encodeHello,
  encodeProof,
  type Hello,
  Intent,
} from '../../src/frame/hello.ts';
import { HEADER_BYTES } from '../../src/frame/limits.ts';
import { decodeReason } from '../../src/frame/reason.ts';
import { proofMac, sessionSecret, type Transcript } from '../../src/session/proof.ts';
import type { SeenFrame } from '../support/byte-link.ts';
import { within } from '../support/lab/processes.ts';

const ANSWER_TIMEOUT_MS = 20_000;
const NO_EXPORTER = new Uint8Array(32);

/** A client that says whatever the test wants, over a plain socket. */
export class WirePeer {
  readonly id: Uint8Array = crypto.getRandomValues(new Uint8Array(16));
  /** Secret of its session, once it has opened one. */
  secret: Uint8Array | undefined;
  readonly #socket: net.Socket;
  readonly #frames: SeenFrame[] = [];
  readonly #decoder: FrameDecoder;
  #isClosed = false;
  #wake = (): void => {};

  private constructor(socket: net.Socket, id?: Uint8Array) {
    this.#socket = socket;
    if (id !== undefined) this.id = id;
    this.#decoder = new FrameDecoder({
      allocate: (bytes) => new Uint8Array(bytes),
      onFrame: (header, payload) => {
        this.#frames.push({ header: { ...header }, payload });
        if (header.type === FrameType.Welcome) this.#decoder.stage = 'session';
      },
    });
    socket.on('error', () => {});
    socket.on('data', (chunk) => {
      this.#decoder.push(chunk);
      this.#wake();
    });
    socket.on('close', () => {
      this.#isClosed = true;
      this.#wake();
    });
  }

  static async connect(port: number, { id }: { id?: Uint8Array } = {}): Promise<WirePeer> {
    const socket = net.connect({ port, host: '127.0.0.1' });
    await once(socket, 'connect');
    return new WirePeer(socket, id);
  }

  send(bytes: Uint8Array): void {
    this.#socket.write(bytes);
  }

  /** A Data frame whose header says `parts`. */
  sendData(parts: { sequence: number; lane?: number; epoch?: number; bytes?: number }): void {
    const { sequence, lane = 0, epoch = sequence, bytes = 1 } = parts;
    const frame = new Uint8Array(HEADER_BYTES + bytes);
    encodeHeader(frame, 0, {
      type: FrameType.Data,
      flags: 0,
      lane,
      length: bytes,
      sequence,
      epoch,
    });
    this.send(frame);
  }

  /** The next frame that is not a Ping; undefined if the connection was closed before. */
  async next(): Promise<SeenFrame | undefined> {
    const arrived = async (): Promise<SeenFrame | undefined> => {
      for (;;) {
        const frame = this.#frames.shift();
        if (frame !== undefined && frame.header.type !== FrameType.Ping) return frame;
        if (frame !== undefined) continue;
        if (this.#isClosed) return undefined;
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
    };
    return await within(arrived(), ANSWER_TIMEOUT_MS, 'a frame or the end of the connection');
  }

  /** What it is told at the end: the code of a Refuse or Close, or that it was just closed. */
  async end(): Promise<string> {
    let said = 'closed';
    for (let frame = await this.next(); frame !== undefined; frame = await this.next()) {
      const { type } = frame.header;
      const hasReason = type === FrameType.Refuse || type === FrameType.Close;
      if (hasReason) said = `${nameOf(type)} ${decodeReason(frame.payload).code}`;
    }
    return said;
  }

  /** Says Hello and proves it, as far as the server lets it. @returns The last answer's name. */
  async greet(changes: Partial<Hello> & { mac?: (mac: Uint8Array) => Uint8Array } = {}) {
    const { mac: changeMac = (mac: Uint8Array) => mac, ...parts } = changes;
    const nonce = crypto.getRandomValues(new Uint8Array(32));
    const hello = { intent: Intent.New, versions: [1], id: this.id, nonce, ...parts };
    this.send(encodeFrame(FrameType.Hello, { payload: encodeHello(hello) }));
    const challenge = await this.next();
    if (challenge?.header.type !== FrameType.Challenge) return nameOfFrame(challenge);
    const transcript: Transcript = {
      id: hello.id,
      clientNonce: hello.nonce,
      serverNonce: decodeChallenge(challenge.payload).nonce,
      exporter: NO_EXPORTER,
    };
    this.secret ??= sessionSecret(transcript);
    const label = hello.intent === Intent.New ? 'new' : 'join';
    const mac = changeMac(proofMac(this.secret, label, transcript));
    const proof = encodeProof({ mac, windowBytes: 64 * 1024 });
    this.send(encodeFrame(FrameType.Proof, { payload: proof }));
    return nameOfFrame(await this.next());
  }

  destroy(): void {
    this.#socket.destroy();
  }
}

function nameOfFrame(frame: SeenFrame | undefined): string {
  if (frame === undefined) return 'closed';
  const name = nameOf(frame.header.type);
  return name === 'Refuse' ? `Refuse ${decodeReason(frame.payload).code}` : name;
}
