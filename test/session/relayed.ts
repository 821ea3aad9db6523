import { PagelaneError } from '../../src/errors.ts';
import { connectSession } from '../../src/session/connect.ts';
import { type Listener, listenForSessions } from '../../src/session/listener.ts';
import type { Session } from '../../src/session/session.ts';
import { waitUntil, within } from '../support/lab/processes.ts';
import { Relay } from './relay.ts';
import { Transfer, type TransferOptions } from './support.ts';

const TIMEOUT_MS = 50_000;
const WINDOW_BYTES = 1 << 20;
const OVER = new PagelaneError('ERR_TEST_OVER', 'The test is over');

/** What a session through relays is made of. */
export interface RelayedOptions {
  readonly paths: number;
  readonly windowBytes?: number;
  readonly resumeTimeoutMs?: number;
  readonly rekeyBytes?: number;
}

/** A session over real sockets, whose every path goes through a relay of its own. */
export class RelayedSession {
  readonly listener: Listener;
  readonly client: Session;
  readonly server: Session;
  readonly relays: Relay[];

  private constructor(parts: {
    listener: Listener;
    client: Session;
    server: Session;
    relays: Relay[];
  }) {
    this.listener = parts.listener;
    this.client = parts.client;
    this.server = parts.server;
    this.relays = parts.relays;
  }

  /** @param closers What is to be called after the test, the last first. */
  static async open(options: RelayedOptions, closers: (() => unknown)[]): Promise<RelayedSession> {
    const { paths: pathCount, windowBytes = WINDOW_BYTES, resumeTimeoutMs = 30_000 } = options;
    const { rekeyBytes } = options;
    const common = { security: { kind: 'none' }, windowBytes, resumeTimeoutMs } as const;
    const listener = await listenForSessions({ ...common, host: '127.0.0.1', port: 0 });
    closers.push(() => listener.close());
    const relays: Relay[] = [];
    for (let count = 0; count < pathCount; count++) {
      relays.push(await openRelay(listener.port, closers));
    }
    const paths = relays.map(({ port }) => ({ host: '127.0.0.1', port }));
    const ofClient = rekeyBytes === undefined ? {} : { rekeyBytes };
    const client = await connectSession({ ...common, ...ofClient, paths, requireAllPaths: true });
    closers.push(() => client.fail(OVER));
    const server = await listener.accept();
    closers.push(() => server.fail(OVER));
    return new RelayedSession({ listener, client, server, relays });
  }

  /** Sends one way over a lane of its own. */
  async transfer(from: Session, options: TransferOptions): Promise<Transfer> {
    const to = from === this.client ? this.server : this.client;
    const transfer = new Transfer(options).send(from.openLane());
    transfer.receive(await within(to.acceptLane(), TIMEOUT_MS, 'the lane to arrive'));
    return transfer;
  }
}

/** Opens a relay, on a port of the system's choice if none is given. */
export async function openRelay(to: number, closers: (() => unknown)[], port = 0): Promise<Relay> {
  const relay = await Relay.open(to, port);
  closers.push(() => relay.close());
  return relay;
}

/** Ids of the paths that are open. */
export function openPaths(session: Session): number[] {
  return session
    .pathReports()
    .filter(({ state }) => state === 'open')
    .map(({ id }) => id);
}

/** Waits, for a time that only a fault takes. */
export async function until(what: string, isDone: () => boolean): Promise<void> {
  await waitUntil(what, isDone, { timeoutMs: TIMEOUT_MS });
}
