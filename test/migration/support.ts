import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  type AcceptOptions,
  connect,
  type DestinationStream,
  listen,
  type MigrationSession,
  QemuChannel,
  QemuListener,
  type SourceOptions,
  type SourceStream,
} from '../../src/index.ts';
import { FakeDestination, FakeSource } from '../support/fake-qemu.ts';

/* Chosen by us */

/** Nothing in these tests takes so long, however busy the machine is. */
export const BOUND_MS = 20_000;
const SECURITY = { kind: 'none' } as const;

/** Two sessions of one process, joined over loopback, and a migration between them. */
export interface Ends extends AsyncDisposable {
  readonly sourceSession: MigrationSession;
  readonly destinationSession: MigrationSession;
  readonly source: SourceStream;
  readonly destination: DestinationStream;
}

/** How two ends differ from usual ones. */
export type EndWays = { readonly pathCount?: number; readonly hasOneChannel?: boolean } & Pick<
  AcceptOptions,
  'storeBytes' | 'verify'
>;

/** Opens a session over `pathCount` connections and begins a migration. */
export async function openEnds(
  options: SourceOptions = {},
  { pathCount = 1, hasOneChannel: _, ...accept }: EndWays = {},
): Promise<Ends> {
  const listener = await listen({ host: '127.0.0.1', port: 0, security: SECURITY, threads: 2 });
  const path = { host: '127.0.0.1', port: listener.port };
  const paths = Array.from({ length: pathCount }, () => path);
  const accepted = listener.accept();
  const sourceSession = await connect({ paths, security: SECURITY, threads: 2 });
  const destinationSession = await accepted;
  const source = sourceSession.openMigration(options);
  const destination = await destinationSession.acceptMigration(accept);
  // A test that fails a stream says so by `result`; an 'error' without a listener would end it.
  source.on('error', () => {});
  destination.on('error', () => {});
  return {
    sourceSession,
    destinationSession,
    source,
    destination,
    [Symbol.asyncDispose]: async () => {
      await Promise.all([sourceSession.close(), destinationSession.close()]);
      await listener.close();
    },
  };
}

/** The same with a QEMU at each end, relayed. */
export async function openRelay(options: SourceOptions = {}, ways: EndWays = {}) {
  const folder = mkdtempSync(join(tmpdir(), 'pagelane-relay-'));
  const unix = (name: string) => ({ kind: 'unix', path: join(folder, name) }) as const;
  const ends = await openEnds(options, ways);
  const destinationQemu = await FakeDestination.listen(unix('in').path);
  const listener = await QemuListener.listen(unix('out'));
  const sourceQemu = await FakeSource.connect(unix('out').path);
  const channel = await listener.accept({ timeoutMs: BOUND_MS });
  ends.source.relay(channel);
  const open = () => QemuChannel.connect(unix('in'), { timeoutMs: BOUND_MS });
  if (ways.hasOneChannel === true) ends.destination.relay(await open());
  else ends.destination.relayWhenNeeded(open);
  return {
    ...ends,
    sourceQemu,
    destinationQemu,
    channel,
    /** A further channel of the source QEMU. */
    openSecond: () => FakeSource.connect(unix('out').path),
    [Symbol.asyncDispose]: async () => {
      await sourceQemu[Symbol.asyncDispose]();
      await destinationQemu[Symbol.asyncDispose]();
      channel.destroy();
      await listener.close();
      await ends[Symbol.asyncDispose]();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
