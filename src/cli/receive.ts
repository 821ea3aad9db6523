import { rm } from 'node:fs/promises';
import {
  type AcceptOptions,
  type ControlServer,
  checkNoTicket,
  type DestinationStream,
  listen,
  type MigrationListener,
  type MigrationResult,
  type MigrationSession,
  messageOf,
  PagelaneError,
  parseHostPort,
  QemuChannel,
} from '../index.ts';
import { startControl } from './control.ts';
import { interruptSignal } from './interrupt.ts';
import {
  COMMON_FLAGS,
  type CommonOptions,
  type Flags,
  formatHelp,
  readArguments,
  readCommon,
  readFlag,
  readSecurity,
  readVerify,
  UsageError,
} from './options.ts';
import { exitCodeOf, forcedExitCode, print, Reporter } from './report.ts';
import { dataStream, formatListening, sessionOptions, warnInsecure } from './send.ts';
import { readGather, STAGE_FLAGS } from './stage.ts';

const FLAGS: Flags = {
  listen: {
    type: 'string',
    value: 'ADDR:PORT',
    help: 'where paths arrive; all of them on one port',
  },
  verify: {
    type: 'string',
    value: 'full|off',
    help: 'full: compare all memory that QEMU has loaded before the source hears of success',
  },
  memory: {
    type: 'string',
    multiple: true,
    value: 'BLOCK=FILE',
    help: 'for --verify: RAM block, and the file that a QEMU started with -S maps for it, share=on',
  },
  ...STAGE_FLAGS,
  ticket: {
    type: 'string',
    value: 'FILE',
    help: 'what opens staged pages, kept until all are here: for "gather --recover" after a crash',
  },
  ...COMMON_FLAGS,
};

const USAGE = 'pagelane receive --listen ADDR:PORT --key FILE [options]';
const EXAMPLES = [
  'pagelane receive --listen 0.0.0.0:7700 --key k --qemu unix:/run/vm1.in    with QEMU: -incoming unix:/run/vm1.in',
  '-incoming "exec:pagelane receive --listen 0.0.0.0:7700 --key /etc/pagelane/key"        for QEMU',
  'pagelane receive --listen 0.0.0.0:7700 --key k --qemu unix:/run/vm1.in --verify full --memory memory=/dev/shm/vm1',
  'pagelane receive --listen 0.0.0.0:7700 --key k --cpu-set 0-3,8 --priority 10 --qemu unix:/run/vm1.in',
];

/** `pagelane receive`: the destination's side of one migration. */
export async function receive(args: readonly string[]): Promise<number> {
  const { values, positionals } = readArguments(args, FLAGS, process.env);
  if (values.is('help')) {
    print(formatHelp(USAGE, EXAMPLES, FLAGS));
    return 0;
  }
  if (positionals.length > 0) throw new UsageError(`unexpected "${positionals[0]}"`);
  const text = values.text('listen');
  if (text === undefined) throw new UsageError('give --listen ADDR:PORT');
  const place = readFlag('listen', text, parseHostPort);
  const common = readCommon(values);
  const verify = readVerify(values);
  const gather = readGather(values);
  const reporter = new Reporter({ ...common, stdout: dataStream(common), stderr: process.stderr });
  let migration: DestinationStream | undefined;
  const signal = interruptSignal({
    onFirst: () => reporter.say('stopping; interrupt again to force'),
    forcedExitCode: () => forcedExitCode(migration?.progress().phase),
  });
  let listener: MigrationListener | undefined;
  let control: ControlServer | undefined;
  try {
    const ticket = values.text('ticket');
    if (ticket !== undefined) checkNoTicket(ticket);
    const security = readSecurity(values);
    if (security.kind === 'none') warnInsecure(reporter);
    const options = { ...sessionOptions(common), ...place, security, sessionsMax: 1, signal };
    listener = await listen(options);
    listener.onRefused = (error) => reporter.say(`turned a connection away: ${error.message}`);
    reporter.say(`listening on ${formatListening(listener)}`);
    const first = await firstMigration(listener, { ...common, verify, gather }, reporter, signal);
    migration = first.migration;
    const { name } = migration;
    first.session.setMaxBandwidth(common.maxBytesPerSecond);
    const about = { name, side: 'destination', reporter } as const;
    control = await startControl(first.session, migration, about);
    const result = await run(migration, first.session, { ...common, ticket }, reporter, signal);
    return exitCodeOf(result);
  } catch (error) {
    return reporter.early('destination', error);
  } finally {
    await control?.close();
    await listener?.close();
  }
}

/** The first session that begins a migration; those that end before that did no harm. */
async function firstMigration(
  listener: MigrationListener,
  common: CommonOptions & Required<Pick<AcceptOptions, 'verify' | 'gather'>>,
  reporter: Reporter,
  signal: AbortSignal,
): Promise<{ session: MigrationSession; migration: DestinationStream }> {
  const late = AbortSignal.timeout(common.waitMs);
  const either = AbortSignal.any([signal, late]);
  for (;;) {
    let session: MigrationSession;
    try {
      session = await listener.accept({ signal: either });
    } catch (error) {
      if (!late.aborted || signal.aborted) throw error;
      const text = `No source connected within ${common.waitMs} ms (--wait)`;
      throw new PagelaneError('ERR_PATH_TIMEOUT', text);
    }
    try {
      const { storeBytes, verify, gather } = common;
      const kept = storeBytes !== undefined && { storeBytes };
      const migration = await session.acceptMigration({
        ...kept,
        verify,
        gather,
        signal: either,
      });
      return { session, migration };
    } catch (error) {
      reporter.warn(`a session ended before its migration began: ${messageOf(error)}`);
      await session.close();
    }
  }
}

async function run(
  migration: DestinationStream,
  session: MigrationSession,
  { ticket, ...common }: CommonOptions & { readonly ticket: string | undefined },
  reporter: Reporter,
  signal: AbortSignal,
): Promise<MigrationResult> {
  const events = reporter.followEvents(session.events());
  const named = migration.name === '' ? '' : ` of ${migration.name}`;
  reporter.say(`session ${session.id.slice(0, 8)}: migration${named} begins`);
  reporter.follow(migration);
  const result = await migration.relayWhenNeeded(
    () => QemuChannel.connect(common.qemu, { timeoutMs: common.waitMs, signal }),
    { signal },
  );
  reporter.stop();
  if (ticket !== undefined && result.outcome === 'completed') await rm(ticket, { force: true });
  // The result is the last that is written.
  await session.close();
  await events;
  reporter.result(result);
  return result;
}
