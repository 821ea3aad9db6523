import { encodeFrame } from '../../src/frame/encode.ts';
import { FrameType, nameOf } from '../../src/frame/header.ts';
import {
  decodeChallenge,
  encodeHello,
  encodeProof,
  type Hello,
  Intent,
} from '../../src/frame/hello.ts';
import { decodeReason } from '../../src/frame/reason.ts';
import {
  type ProofLabel,
  proofMac,
  sessionSecret,
  type Transcript,
} from '../../src/session/proof.ts';
import { Reception } from '../../src/session/reception.ts';
import type { Session } from '../../src/session/session.ts';
import { ByteLink } from '../support/byte-link.ts';
import { exactRandomBytes } from '../support/prng.ts';

export const WINDOW_BYTES: number = 64 * 1024;

/** A reception without a network, and without time but for what the test lets pass. */
export class Desk {
  nowMs = 0;
  /** Every session that was opened. */
  readonly sessions: Session[] = [];
  /** Codes of what was refused. */
  readonly refusals: string[] = [];
  readonly reception: Reception;

  constructor({ sessionsMax = 64, connectionsMax = 1024 } = {}) {
    const clock = { now: () => this.nowMs, after: () => () => {} };
    this.reception = new Reception({
      windowBytes: WINDOW_BYTES,
      resumeTimeoutMs: 60_000,
      clock,
      sessionsMax,
      hasRoom: () => this.openPaths < connectionsMax,
      offer: () => ({ addresses: [], port: 1 }),
      onSession: (session) => this.sessions.push(session),
    });
  }

  get openPaths(): number {
    const states = this.sessions.flatMap((session) => session.pathReports());
    return states.filter(({ state }) => state === 'open').length;
  }
}

/** How a peer comes in. */
export interface PeerParts {
  readonly random: () => number;
  /** What its TLS connection gives, at its end and at ours. @default the same random bytes */
  readonly exporter?: Uint8Array;
  readonly exporterHere?: Uint8Array;
  readonly network?: string;
}

/** What a peer says of itself. */
export interface Claim {
  readonly id: Uint8Array;
  /** Secret of the session that it joins; absent to open one. */
  readonly secret?: Uint8Array | undefined;
  /** @default what fits */
  readonly label?: ProofLabel;
  readonly changeMac?: (mac: Uint8Array) => Uint8Array;
}

/** A client in memory, that says whatever the test wants. */
export class MemoryPeer {
  readonly link = new ByteLink();
  /** All that it has sent. */
  readonly sent: Uint8Array[] = [];
  /** Secret of the session that it has opened or joined. */
  secret: Uint8Array | undefined;
  #hello: Hello | undefined;
  readonly #exporter: Uint8Array;
  readonly #random: () => number;

  constructor(desk: Desk, { random, exporter, exporterHere, network = '192.0.2.1' }: PeerParts) {
    this.#random = random;
    this.#exporter = exporter ?? exactRandomBytes(random, 32);
    desk.reception.receive({
      link: this.link,
      exporter: exporterHere ?? this.#exporter,
      network,
      noteHello: () => {},
      finish: (error) => {
        if (error !== undefined) desk.refusals.push((error as Error & { code: string }).code);
      },
    });
  }

  /** Name of the last frame it was sent, with the code of a refusal. */
  get answer(): string {
    const frame = this.link.sent.findLast(({ header }) => header.type < FrameType.Data);
    if (frame === undefined) return 'nothing';
    const name = nameOf(frame.header.type);
    return name === 'Refuse' ? `Refuse ${decodeReason(frame.payload).code}` : name;
  }

  send(bytes: Uint8Array): void {
    this.sent.push(bytes);
    this.link.give(bytes);
  }

  hello({ id, secret }: Claim): void {
    const intent = secret === undefined ? Intent.New : Intent.Join;
    const nonce = exactRandomBytes(this.#random, 32);
    this.#hello = { intent, versions: [1], id, nonce };
    this.send(encodeFrame(FrameType.Hello, { payload: encodeHello(this.#hello) }));
  }

  /** Proves what its Hello says, if it got a Challenge. */
  prove({ secret, label, changeMac = (mac) => mac }: Claim): void {
    const challenge = this.link.sent.find(({ header }) => header.type === FrameType.Challenge);
    if (challenge === undefined || this.#hello === undefined) return;
    const transcript: Transcript = {
      id: this.#hello.id,
      clientNonce: this.#hello.nonce,
      serverNonce: decodeChallenge(challenge.payload).nonce,
      exporter: this.#exporter,
    };
    this.secret = secret ?? sessionSecret(transcript);
    const fitting = secret === undefined ? 'new' : 'join';
    const mac = changeMac(proofMac(this.secret, label ?? fitting, transcript));
    const payload = encodeProof({ mac, windowBytes: WINDOW_BYTES });
    this.send(encodeFrame(FrameType.Proof, { payload }));
  }

  /** Says Hello and proves it. @returns The last answer. */
  greet(claim: Claim): string {
    this.hello(claim);
    this.prove(claim);
    return this.answer;
  }
}
