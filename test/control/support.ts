import { linkSync, mkdtempSync, rmSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { PathAddress } from '../../src/address.ts';
import type { Clock } from '../../src/clock.ts';
import type { SessionReport } from '../../src/control/report.ts';
import type { ControlledSession } from '../../src/control/server.ts';
import type { PathReport } from '../../src/path/path.ts';

export const ID = '1a2b3c4d'.repeat(4);

/** A path as a session reports it. */
export function pathReport(values: Partial<PathReport> = {}): PathReport {
  return {
    id: 0,
    local: '10.1.0.1:40000',
    remote: '10.1.0.2:7700',
    state: 'open',
    isParked: false,
    sentBytes: 1000,
    receivedBytes: 2000,
    rttMs: 0.5,
    bytesPerSecond: 125_000_000,
    maxBytesPerSecond: undefined,
    unackedBytes: 0,
    ...values,
  };
}

/** A session as a process reports it. */
export function sessionReport(values: Partial<SessionReport> = {}): SessionReport {
  return {
    id: ID,
    name: 'vm1',
    side: 'source',
    phase: 'precopy',
    elapsedMs: 1500,
    paths: [pathReport()],
    ...values,
  };
}

/** A session that does as it is told, and writes it down. */
export class FakeSession implements ControlledSession {
  readonly id: string;
  readonly log: string[] = [];
  paths: PathReport[] = [pathReport({ id: 0 }), pathReport({ id: 1, remote: '10.2.0.2:7700' })];
  /** What adding and removing a path waits for. */
  until: Promise<void> = Promise.resolve();

  constructor(id = ID) {
    this.id = id;
  }

  pathReports(): PathReport[] {
    return this.paths;
  }

  async addPath(address: PathAddress): Promise<void> {
    this.log.push(`addPath ${JSON.stringify(address)}`);
    await this.until;
    this.paths.push(pathReport({ id: this.paths.length, remote: `${address.host}:7700` }));
  }

  async removePath(id: number): Promise<void> {
    this.log.push(`removePath ${id}`);
    await this.until;
    this.#change(id, { state: 'closed' });
  }

  setMaxBandwidth(bytesPerSecond: number | undefined): void {
    this.log.push(`setMaxBandwidth ${bytesPerSecond}`);
  }

  setPathMaxBandwidth(id: number, bytesPerSecond: number | undefined): void {
    this.log.push(`setPathMaxBandwidth ${id} ${bytesPerSecond}`);
    this.#change(id, { maxBytesPerSecond: bytesPerSecond });
  }

  #change(id: number, values: Partial<PathReport>): void {
    this.paths = this.paths.map((path) => (path.id === id ? { ...path, ...values } : path));
  }
}

/** A clock whose time passes only when it is told. */
export class ManualClock implements Clock {
  #nowMs = 0;
  #calls: { atMs: number; callback: () => void }[] = [];

  now(): number {
    return this.#nowMs;
  }

  after(delayMs: number, callback: () => void): () => void {
    const call = { atMs: this.#nowMs + delayMs, callback };
    this.#calls.push(call);
    return () => {
      this.#calls = this.#calls.filter((each) => each !== call);
    };
  }

  /** Calls that are due at some time. */
  get count(): number {
    return this.#calls.length;
  }

  pass(ms: number): void {
    this.#nowMs += ms;
    const due = this.#calls.filter(({ atMs }) => atMs <= this.#nowMs);
    this.#calls = this.#calls.filter(({ atMs }) => atMs > this.#nowMs);
    for (const { callback } of due) callback();
  }
}

/** A folder of the test's own, with room for a directory of control sockets. */
export class Folder implements Disposable {
  readonly path: string = mkdtempSync(join(tmpdir(), 'pagelane-control-'));

  /** Environment that names a directory which is not there yet. */
  get environment(): NodeJS.ProcessEnv {
    return { PAGELANE_CONTROL_DIR: join(this.path, 'sockets') };
  }

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true, force: true });
  }
}

/** Writes bytes to a socket and returns everything that comes back until it is closed. */
export function exchangeRaw(
  path: string,
  bytes: string | Uint8Array,
  end = false,
): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect({ path, allowHalfOpen: true });
    let text = '';
    socket.setEncoding('utf8').on('data', (chunk) => {
      text += chunk;
    });
    socket.once('end', () => {
      resolve(text);
      socket.destroy();
    });
    socket.once('error', reject);
    if (end) socket.end(bytes);
    else socket.write(bytes);
  });
}

/** Leaves a socket's file behind, as a process that was killed does. */
export async function leaveSocket(path: string): Promise<void> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(`${path}.made`, resolve));
  linkSync(`${path}.made`, path);
  await new Promise((resolve) => server.close(resolve));
}
