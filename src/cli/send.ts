import {
  type ConnectOptions,
  type ControlServer,
  closeIntermediaries,
  codeOf,
  connect,
  errorOf,
  formatHostPort,
  formatQemuAddress,
  type MigrationResult,
  type MigrationSession,
  messageOf,
  PATHS_MAX,
  PagelaneError,
  parseHostPort,
  parsePathSpec,
  QemuChannel,
  QemuListener,
  type SessionOptions,
  type SourceStream,
  type StageOptions,
  type ThreadOptions,
} from '../index.ts';
import { startControl } from './control.ts';
import { interruptSignal, isInterrupt, nextInterrupt } from './interrupt.ts';
import {
  COMMON_FLAGS,
  type CommonOptions,
  type Flags,
  formatHelp,
  readArguments,
  readCodec,
  readCommon,
  readFlag,
  readSecurity,
  UsageError,
  type Values,
} from './options.ts';
import { exitCodeOf, forcedExitCode, print, Reporter } from './report.ts';
import { openStage, PARITY_FLAG, readStage, STAGE_FLAGS } from './stage.ts';

const FLAGS: Flags = {
  to: {
    type: 'string',
    value: 'HOST:PORT',
    help: 'where "pagelane receive" listens: the first path',
  },
  path: {
    type: 'string',
    multiple: true,
    value: '[LOCAL@]HOST:PORT|NETWORK|auto[,max=RATE]',
    help: 'one path; those in a network (10.1.0.0/24); or one from each interface; repeat for more',
  },
  codec: {
    type: 'string',
    value: 'auto|none|lz4|zstd',
    help: 'compression; auto follows the links',
  },
  name: { type: 'string', value: 'NAME', help: 'name of the virtual machine, for reports' },
  ...STAGE_FLAGS,
  ...PARITY_FLAG,
  ...COMMON_FLAGS,
};

const USAGE = 'pagelane send --to HOST:PORT [--path PATH]… --key FILE [options]';
const EXAMPLES = [
  'pagelane send --to dst:7700 --key k --qemu unix:/run/vm1.mig      then, in QEMU: migrate unix:/run/vm1.mig',
  'migrate "exec:pagelane send --to dst:7700 --key /etc/pagelane/key"        in QEMU',
  'pagelane send --to dst:7700 --key k --cpu-set 0-3,8 --priority 10 --qemu unix:/run/vm1.mig',
  'pagelane send --to dst:7700 --key k --stage redis://r1,redis://r2,redis://r3 --parity 1 --qemu unix:/run/vm1.mig',
  'pagelane send --path 10.1.0.1@10.1.0.2:7700 --path 10.2.0.1@10.2.0.2:7700 --key k --qemu unix:/run/vm1.mig',
];

/** `pagelane send`: the source's side of one migration. */
export async function send(args: readonly string[]): Promise<number> {
  const { values, positionals } = readArguments(args, FLAGS, process.env);
  if (values.is('help')) {
    print(formatHelp(USAGE, EXAMPLES, FLAGS));
    return 0;
  }
  if (positionals.length > 0) throw new UsageError(`unexpected "${positionals[0]}"`);
  const paths = readPaths(values);
  const codec = readCodec(values);
  const common = readCommon(values);
  const plan = readStage(values);
  // The key that seals pages goes over the session.
  if (plan !== undefined && values.is('insecure')) {
    throw new UsageError('--stage needs --key or --tls-dir');
  }
  if (common.qemu.kind === 'null') throw new UsageError('--qemu null: is for receive only');
  const reporter = new Reporter({ ...common, stdout: dataStream(common), stderr: process.stderr });
  let migration: SourceStream | undefined;
  const signal = interruptSignal({
    onFirst: () => reporter.say('cancelling; interrupt again to force'),
    forcedExitCode: () => forcedExitCode(migration?.progress().phase),
  });
  let listener: QemuListener | undefined;
  let session: MigrationSession | undefined;
  let events: Promise<void> | undefined;
  let control: ControlServer | undefined;
  let stage: StageOptions | undefined;
  let channel: QemuChannel | undefined;
  try {
    const security = readSecurity(values);
    if (security.kind === 'none') warnInsecure(reporter);
    if (plan !== undefined) stage = await openStage(plan);
    const listens = common.qemu.kind !== 'stdio';
    // With staging QEMU must not begin before all is ready: it may switch over at once.
    if (listens && plan === undefined) listener = await QemuListener.listen(common.qemu);
    session = await connect({ ...sessionOptions(common), security, ...paths, signal });
    session.setMaxBandwidth(common.maxBytesPerSecond);
    events = reporter.followEvents(session.events());
    const name = values.text('name') ?? '';
    const { storeBytes } = common;
    const kept = storeBytes !== undefined && { storeBytes };
    const staged = stage !== undefined && { stage };
    migration = session.openMigration({ name, codec, ...kept, ...staged, signal });
    control = await startControl(session, migration, { name, side: 'source', reporter });
    await readyOrFailed(migration);
    if (listens) listener ??= await QemuListener.listen(common.qemu);
    channel = await openChannel(listener, migration, common, reporter, signal);
    const result = await run(migration, channel, session, reporter);
    // The result is the last that is written.
    await session.close();
    await events;
    reporter.result(result);
    if (result.guest === 'unknown') await hold(channel, reporter);
    return exitCodeOf(result);
  } catch (error) {
    session?.fail(asPagelaneError(error));
    await session?.close();
    await events;
    return reporter.early('source', error);
  } finally {
    await control?.close();
    channel?.destroy();
    await listener?.close();
    await closeIntermediaries(stage?.intermediaries ?? []);
  }
}

/** The paths to open at once, and all that are wanted if some of them have to be found. */
function readPaths(values: Values): Pick<ConnectOptions, 'paths' | 'find'> {
  const specs = values.texts('path').map((text) => readFlag('path', text, parsePathSpec));
  const named = specs.flatMap((spec) => (spec.kind === 'address' ? [spec.address] : []));
  if (named.length > PATHS_MAX) {
    throw new UsageError(`a session has 1 to ${PATHS_MAX} paths, not ${named.length}`);
  }
  const isAllNamed = named.length === specs.length;
  if (named.length > 0) return isAllNamed ? { paths: named } : { paths: named, find: specs };
  const to = values.text('to');
  if (to === undefined && isAllNamed) {
    throw new UsageError('give --to HOST:PORT, or --path for each path');
  }
  if (to === undefined) {
    throw new UsageError('give --to HOST:PORT as well: there the destination offers its addresses');
  }
  const paths = [readFlag('to', to, parseHostPort)];
  return isAllNamed ? { paths } : { paths, find: specs };
}

/** Waits until QEMU may be let in. @throws What the migration has failed with before. */
async function readyOrFailed(migration: SourceStream): Promise<void> {
  const failed = migration.result.then((result) => {
    throw errorOf(result);
  });
  await Promise.race([migration.ready, failed]);
  failed.catch(() => {}); // told when it comes to that
}

/** Waits for QEMU, as long as there is a session to carry what it says. */
async function openChannel(
  listener: QemuListener | undefined,
  migration: SourceStream,
  common: CommonOptions,
  reporter: Reporter,
  signal: AbortSignal,
): Promise<QemuChannel> {
  if (listener === undefined) return QemuChannel.stdio();
  reporter.say(`ready; in QEMU: migrate ${formatQemuAddress(common.qemu)}`);
  const over = new AbortController();
  migration.result.then((result) => over.abort(errorOf(result)));
  const either = AbortSignal.any([signal, over.signal]);
  return await listener.accept({ timeoutMs: common.waitMs, signal: either });
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
  reporter.stop();
  return result;
}

/**
 * Keeps QEMU's channel open: a source QEMU whose channel closes before it has the destination's
 * word starts the guest again, and there may be a second one at the destination.
 */
async function hold(channel: QemuChannel, reporter: Reporter): Promise<void> {
  if (channel.isClosed) return;
  reporter.fail(
    'holding the channel so that the source QEMU stays stopped. Look whether the guest runs at the ' +
      'destination; if so, quit the source QEMU; if not, interrupt this process: the source then runs on',
  );
  await Promise.race([channel.closed, nextInterrupt()]);
}

function asPagelaneError(error: unknown): PagelaneError {
  if (error instanceof PagelaneError) return error;
  return new PagelaneError(isInterrupt(error) ? 'ERR_CANCELLED' : codeOf(error), messageOf(error));
}

/** Options of a session, from the command line. */
export function sessionOptions(
  common: CommonOptions,
): ThreadOptions & Pick<SessionOptions, 'windowBytes' | 'resumeTimeoutMs'> {
  const { threads, cpuSet, priority, windowBytes, resumeTimeoutMs } = common;
  return {
    ...(threads !== undefined && { threads }),
    ...(cpuSet !== undefined && { cpuSet }),
    ...(priority !== undefined && { priority }),
    ...(windowBytes !== undefined && { windowBytes }),
    ...(resumeTimeoutMs !== undefined && { resumeTimeoutMs }),
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
