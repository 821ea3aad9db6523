import type { Clock } from '../clock.ts';
import { PagelaneError } from '../errors.ts';
import { type Hello, Intent } from '../frame/hello.ts';
import type { Offer } from '../frame/offer.ts';
import type { PathLink } from '../path/link.ts';
import { type Proved, runServerHandshake } from './handshake.ts';
import { JoinThrottle } from './join-throttle.ts';
import { Session } from './session.ts';

/** A connection that has arrived: see `Arrival`. */
export interface Visitor {
  readonly link: PathLink;
  readonly exporter: Uint8Array;
  readonly network: string;
  noteHello(): void;
  finish(error?: Error): void;
}

/** What a reception knows beside its visitors. */
export interface ReceptionParts {
  readonly windowBytes: number;
  readonly resumeTimeoutMs: number;
  readonly clock: Clock;
  /** Sessions at a time. */
  readonly sessionsMax: number;
  /** Whether a further connection may be welcomed. */
  readonly hasRoom: () => boolean;
  /** Where peers can reach us. */
  readonly offer: () => Offer;
  /** There is a new session. */
  readonly onSession: (session: Session) => void;
}

interface Entry {
  readonly session: Session;
  readonly secret: Uint8Array;
}

/**
 * Asks visitors what they want, and gives each connection to a session, a new one or one that it
 * can prove to belong to; or refuses it.
 *
 * Nothing that a visitor does who is not welcomed in the end changes anything for a session.
 */
export class Reception {
  readonly #parts: ReceptionParts;
  readonly #sessions = new Map<string, Entry>();
  readonly #throttle = new JoinThrottle();

  constructor(parts: ReceptionParts) {
    this.#parts = parts;
  }

  /** Sessions that are not over. */
  get sessionCount(): number {
    return this.#sessions.size;
  }

  /** Takes over a connection on which nothing was said yet; tells it when that is over. */
  receive({ link, exporter, network, noteHello, finish }: Visitor): void {
    const { windowBytes, clock } = this.#parts;
    runServerHandshake({
      link,
      exporter,
      windowBytes,
      clock,
      admit: (hello) => {
        const secret = this.#admit(hello, network);
        noteHello();
        return secret;
      },
      onWrongProof: ({ intent, id }) => {
        if (intent !== Intent.Join) return;
        this.#throttle.noteWrongProof({ network, session: nameOf(id) }, clock.now());
      },
      prepare: (proved) => this.#prepare(link, proved),
      onFinished: finish,
    });
  }

  /** The secret of the session that a Hello joins; undefined if it opens a new one. */
  #admit(hello: Hello, network: string): Uint8Array | undefined {
    if (hello.intent === Intent.New) {
      this.#checkNew(hello.id);
      return undefined;
    }
    const nowMs = this.#parts.clock.now();
    const session = nameOf(hello.id);
    if (!this.#sessions.has(session)) this.#throttle.noteUnknown({ network, session }, nowMs);
    if (this.#throttle.isRefused({ network, session }, nowMs)) {
      const message = `Too many wrong proofs for session ${session} came from ${network}`;
      throw new PagelaneError('ERR_SESSION_JOINS', message);
    }
    return this.#checkJoin(hello.id).secret;
  }

  /** Time has passed since Hello: looks again whether there is room, and for whom. */
  #prepare(link: PathLink, proved: Proved): () => void {
    const { hello, secret } = proved;
    if (hello.intent === Intent.New) {
      this.#checkNew(hello.id);
      return () => this.#open(link, proved);
    }
    const entry = this.#checkJoin(hello.id);
    // Its session may have ended, and another one have begun that bears its name.
    if (entry.secret !== secret) throw unknown(hello.id);
    return () => {
      entry.session.adopt(link, proved);
    };
  }

  #checkNew(id: Uint8Array): void {
    const { sessionsMax } = this.#parts;
    if (this.#sessions.has(nameOf(id))) {
      throw new PagelaneError('ERR_SESSION_EXISTS', `Session ${nameOf(id)} exists`);
    }
    if (this.#sessions.size >= sessionsMax) {
      throw new PagelaneError('ERR_SESSION_LIMIT', `There are ${sessionsMax} sessions already`);
    }
    this.#checkRoom();
  }

  #checkJoin(id: Uint8Array): Entry {
    const entry = this.#sessions.get(nameOf(id));
    if (entry === undefined) throw unknown(id);
    if (!entry.session.hasRoomForPath) {
      const message = `Session ${nameOf(id)} has all the paths it may have`;
      throw new PagelaneError('ERR_SESSION_PATHS', message);
    }
    this.#checkRoom();
    return entry;
  }

  #checkRoom(): void {
    if (this.#parts.hasRoom()) return;
    throw new PagelaneError('ERR_CONNECTION_LIMIT', 'There are as many connections as may be');
  }

  #open(link: PathLink, proved: Proved): void {
    const { windowBytes, resumeTimeoutMs, clock, offer, onSession } = this.#parts;
    const { hello, secret, peerWindowBytes } = proved;
    const { id } = hello;
    const session = new Session({
      id,
      role: 'server',
      windowBytes,
      peerWindowBytes,
      resumeTimeoutMs,
      clock,
      offer: offer(),
    });
    this.#sessions.set(nameOf(id), { session, secret });
    session.ended.then(() => this.#sessions.delete(nameOf(id)));
    session.adopt(link, proved);
    onSession(session);
  }
}

function nameOf(id: Uint8Array): string {
  return Buffer.from(id).toString('hex');
}

function unknown(id: Uint8Array): PagelaneError {
  return new PagelaneError('ERR_SESSION_UNKNOWN', `Session ${nameOf(id)} is unknown`);
}
