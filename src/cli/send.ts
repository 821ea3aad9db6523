import {
  connect,
  formatHostPort,
  formatQemuAddress,
  type MigrationResult,
  type MigrationSession,
  type PathAddress,
  parseHostPort,
  parsePathAddress,
  QemuChannel,
  QemuListener,
  type SourceStream,
} from '../index.ts';
import { interruptSignal, nextInterrupt } from './interrupt.ts';
import {
  COMMON_FLAGS,
  type CommonOptions,
  type Flags,
  formatHelp,
  readArguments,
  readCodec,
  readCommon,
  readFlag,
  UsageError,
  type Values,
} from './options.ts';
import { exitCodeOf, Reporter } from './report.ts';

const FLAGS: Flags = {
  to: {
    type: 'string',
    value: 'HOST:PORT',
    help: 'where "pagelane receive" listens: the first path',
  },
  path: {
    type: 'string',
    multiple: true,
    value: '[LOCAL@]HOST:PORT',
    help: 'one path, from a local address if given; repeat for each; then only these are used',
  },
  codec: {
    type: 'string',
    value: 'auto|none|lz4|zstd',
    help: 'compression; auto follows the links',
  },
  name: { type: 'string', value: 'NAME', help: 'name of the virtual machine, for reports' },
  ...COMMON_FLAGS,
};

const USAGE = 'pagelane send --to HOST:PORT [--path [LOCAL@]HOST:PORT]… --key FILE [options]';
const EXAMPLES = [
  'pagelane send --to dst:7700 --key k --qemu unix:/run/vm1.mig      then, in QEMU: migrate unix:/run/vm1.mig',
  'migrate "exec:pagelane send --to dst:7700 --key /etc/pagelane/key"        in QEMU',
  'pagelane send --path 10.1.0.1@10.1.0.2:7700 --path 10.2.0.1@10.2.0.2:7700 --key k --qemu unix:/run/vm1.mig',
];

/** `pagelane send`: the source's side of one migration. */
export async function send(args: readonly string[]): Promise<number> {
  const { values, positionals } = readArguments(args, FLAGS, process.env);
  if (values.is('help')) {
    process.stdout.write(formatHelp(USAGE, EXAMPLES, FLAGS));
    return 0;
  }
  if (positionals.length > 0) throw new UsageError(`unexpected "${positionals[0]}"`);
  const paths = readPaths(values);
  const codec = readCodec(values);
  const common = readCommon(values);
  const reporter = new Reporter({ ...common, stdout: dataStream(common), stderr: process.stderr });
  if (common.security.kind === 'none') warnInsecure(reporter);
  if (common.qemu.kind === 'null') throw new UsageError('--qemu null: is for receive only');
  const signal = interruptSignal(() => reporter.say('cancelling; interrupt again to force'));

  const listener =
    common.qemu.kind === 'stdio' ? undefined : await QemuListener.listen(common.qemu);
  try {
    const session = await connect({ ...sessionOptions(common), paths, signal });
    reporter.followEvents(session.events());
    const name = values.text('name') ?? '';
    const migration = session.openMigration({ name, codec, signal });
    const channel = await openChannel(listener, common, reporter, signal);
    const result = await run(migration, channel, session, reporter);
    return exitCodeOf(result);
  } finally {
    listener?.close();
  }
}

function readPaths(values: Values): PathAddress[] {
  const paths = values.texts('path').map((text) => readFlag('path', text, parsePathAddress));
  if (paths.length > 0) return paths;
  const to = values.text('to');
  if (to === undefined) throw new UsageError('give --to HOST:PORT, or --path for each path');
  return [readFlag('to', to, parseHostPort)];
}

async function openChannel(
  listener: QemuListener | undefined,
  common: CommonOptions,
  reporter: Reporter,
  signal: AbortSignal,
): Promise<QemuChannel> {
  if (listener === undefined) return QemuChannel.stdio();
  listener.onExtraConnection = () =>
    reporter.warn(
      'QEMU opened a second channel, which was refused: turn off multifd and postcopy-preempt',
    );
  reporter.say(`ready; in QEMU: migrate ${formatQemuAddress(common.qemu)}`);
  return await listener.accept({ timeoutMs: common.waitMs, signal });
}

async function run(
  migration: SourceStream,
  channel: QemuChannel,
  session: MigrationSession,
  reporter: Reporter,
): Promise<MigrationResult> {
  const places = session.pathReports().map((path) => path.remote);
  reporter.say(`QEMU is here; session ${session.id.slice(0, 8)} over ${places.join(', ')}`);
  reporter.follow(migration);
  const result = await migration.relay(channel);
  reporter.result(result);
  await session.close();
  if (result.guest === 'unknown') await hold(channel, reporter);
  return result;
}

/**
 * Keeps QEMU's channel open: a source QEMU whose channel closes before it has the destination's
 * word starts
 * the guest again, and there may be a second one at the destination.
 */
async function hold(channel: QemuChannel, reporter: Reporter): Promise<void> {
  const isOpen = await Promise.race([channel.closed.then(() => false), Promise.resolve(true)]);
  if (!isOpen) return;
  reporter.fail(
    'holding the channel so that the source QEMU stays stopped. Look whether the guest runs at the ' +
      'destination; if so, quit the source QEMU; if not, interrupt this process: the source then runs on',
  );
  await Promise.race([channel.closed, nextInterrupt()]);
}

/** Options of a session, from the command line. */
export function sessionOptions(common: CommonOptions): {
  security: CommonOptions['security'];
  threads?: number;
  windowBytes?: number;
} {
  const { security, threads, windowBytes } = common;
  return {
    security,
    ...(threads !== undefined && { threads }),
    ...(windowBytes !== undefined && { windowBytes }),
  };
}

/** Where data goes: stdout, unless that is QEMU's channel. */
export function dataStream(common: CommonOptions): NodeJS.WritableStream {
  return common.qemu.kind === 'stdio' ? process.stderr : process.stdout;
}

/** Says on every run what --insecure means. */
export function warnInsecure(reporter: Reporter): void {
  reporter.warn('--insecure: guest memory travels in clear, and anyone may send or receive it');
}

/** The address that a listener prints. */
export function formatListening(listener: {
  readonly host: string;
  readonly port: number;
}): string {
  return formatHostPort(listener.host, listener.port);
}
