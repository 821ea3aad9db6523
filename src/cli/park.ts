import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  checkNoTicket,
  closeIntermediaries,
  PagelaneError,
  type ParkFacts,
  parkGuest,
  QemuListener,
  QmpClient,
  setThreads,
  type Ticket,
  writeTicket,
} from '../index.ts';
import { interruptSignal } from './interrupt.ts';
import { type Flags, formatControlHelp, readArguments, readCodec, UsageError } from './options.ts';
import { print } from './report.ts';
import { openStage, PARITY_FLAG, readStage, STAGE_FLAGS, TTL_FLAG } from './stage.ts';
import { waitForEnd, whileStopped } from './stopped-guest.ts';

/* Chosen by us */

/** How long QEMU may take to connect. */
const WAIT_MS = 60_000;

const FLAGS: Flags = {
  ticket: {
    type: 'string',
    value: 'FILE',
    help: 'where the key to the parked guest is kept: who has it has the guest, nobody else has',
  },
  ...STAGE_FLAGS,
  ...PARITY_FLAG,
  ...TTL_FLAG,
  codec: { type: 'string', value: 'auto|none|lz4|zstd', help: 'compression; auto is lz4 here' },
  output: { type: 'string', value: 'text|json', help: 'form of the result on stdout' },
  help: { type: 'boolean', help: 'this text' },
};

const USAGE = 'pagelane park VM.sock --ticket FILE --stage URL[,URL…] [options]';
const EXAMPLES = [
  'pagelane park /run/vm1.qmp --ticket vm1.ticket --stage redis://r1,redis://r2 --parity 1',
  'pagelane gather vm1.ticket --qemu unix:/run/vm1.in    later, with QEMU -incoming unix:/run/vm1.in',
];
const STOPPING = 'pagelane: stopping; interrupt again to force: the guest may be left stopped\n';
const EXIT_CODES =
  '0 parked: quit the source QEMU · 1 not parked: the guest is there as it was · 2 usage · 130 interrupted';

/** `pagelane park`: a whole virtual machine into intermediaries, with no destination yet. */
export async function park(args: readonly string[]): Promise<number> {
  const { values, positionals } = readArguments(args, FLAGS, process.env);
  if (values.is('help')) {
    print(formatControlHelp(USAGE, EXAMPLES, FLAGS, EXIT_CODES));
    return 0;
  }
  const [monitor, ...rest] = positionals;
  if (monitor === undefined || rest.length > 0)
    throw new UsageError("give QEMU's monitor: VM.sock");
  const path = values.text('ticket');
  if (path === undefined) throw new UsageError('give --ticket FILE');
  const output = values.text('output') ?? 'text';
  const codec = readCodec(values);
  const plan = readStage(values);
  if (plan === undefined) throw new UsageError('give --stage URL');
  checkNoTicket(path);
  const signal = interruptSignal({
    onFirst: () => process.stderr.write(STOPPING),
    forcedExitCode: () => 1,
  });
  const stage = await openStage(plan, { isParking: true });
  const folder = mkdtempSync(join(tmpdir(), 'pagelane-park-'));
  try {
    using qmp = await QmpClient.connect(monitor);
    const where = { kind: 'unix', path: join(folder, 'mig') } as const;
    const listener = await QemuListener.listen(where);
    const options = { stage, codec, ...setThreads({}), signal };
    const facts = await whileStopped(qmp, async () => {
      await qmp.execute('migrate', { uri: `unix:${where.path}` });
      const channel = await listener.accept({ timeoutMs: WAIT_MS, signal });
      return await withTicket(path, (keepTicket) => parkGuest(channel, { ...options, keepTicket }));
    }).finally(() => listener.close());
    const status = await waitForEnd(qmp);
    if (status !== 'completed') throw notCompleted(status, path);
    report(facts, { path, output });
    return 0;
  } finally {
    rmSync(folder, { recursive: true, force: true });
    await closeIntermediaries(stage.intermediaries);
  }
}

/** Keeps a ticket as `work` wants it; none is left if `work` fails: the guest is not parked. */
async function withTicket<Value>(
  path: string,
  work: (keepTicket: (ticket: Ticket) => Promise<void>) => Promise<Value>,
): Promise<Value> {
  let isKept = false;
  try {
    return await work(async (ticket) => {
      await writeTicket(path, ticket);
      isKept = true;
    });
  } catch (error) {
    if (isKept) rmSync(path, { force: true });
    throw error;
  }
}

/** QEMU was told that its guest is parked, and thinks otherwise. */
function notCompleted(status: string, ticket: string): PagelaneError {
  const text =
    `The guest is parked, but the source QEMU says "${status}": quit it, and gather ${ticket}; ` +
    'never let both run';
  return new PagelaneError('ERR_QMP', text);
}

function report(facts: ParkFacts, { path, output }: { path: string; output: string }): void {
  if (output === 'json') {
    print(`${JSON.stringify({ v: 1, type: 'parked', ticket: path, ...facts })}\n`);
    return;
  }
  const bytes = ((facts.extentBytes + facts.parityBytes + facts.streamBytes) / 1e6).toFixed(0);
  print(
    `parked in ${facts.evictionMs} ms: ${facts.extents} extents, ${bytes} MB\n` +
      `the source QEMU may be quit; bring the guest back with: pagelane gather ${path} --qemu …\n`,
  );
}
