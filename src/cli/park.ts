import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import {
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
import { type Flags, formatControlHelp, readArguments, readCodec, UsageError } from './options.ts';
import { print } from './report.ts';
import { openStage, PARITY_FLAG, readStage, STAGE_FLAGS, TTL_FLAG } from './stage.ts';

/* Chosen by us */
const LOOK_MS = 50;
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
const EXIT_CODES =
  '0 parked: quit the source QEMU · 1 not parked: the guest is there as it was · 2 usage';

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
  const stage = await openStage(plan, { isParking: true });
  const folder = mkdtempSync(join(tmpdir(), 'pagelane-park-'));
  try {
    using qmp = await QmpClient.connect(monitor);
    const where = { kind: 'unix', path: join(folder, 'mig') } as const;
    const listener = await QemuListener.listen(where);
    const keepTicket = (ticket: Ticket): Promise<void> => writeTicket(path, ticket);
    const { threads } = setThreads({});
    const facts = await whileStopped(qmp, async () => {
      await qmp.execute('migrate', { uri: `unix:${where.path}` });
      const channel = await listener.accept({ timeoutMs: WAIT_MS });
      return await parkGuest(channel, { stage, codec, threads, keepTicket });
    }).finally(() => listener.close());
    await waitForStatus(qmp, 'completed');
    report(facts, { path, output });
    return 0;
  } finally {
    rmSync(folder, { recursive: true, force: true });
    await closeIntermediaries(stage.intermediaries);
  }
}

/** Stops the guest, and sets QEMU up; it runs on as it did, if `work` fails. */
async function whileStopped<Value>(qmp: QmpClient, work: () => Promise<Value>): Promise<Value> {
  const { running } = (await qmp.execute('query-status')) as { readonly running: boolean };
  const before = (await qmp.execute('query-migrate-parameters')) as Record<string, unknown>;
  const { 'max-bandwidth': bandwidth } = before;
  const capabilities = [{ capability: 'postcopy-ram', state: true }];
  try {
    await qmp.execute('stop');
    await qmp.execute('migrate-set-capabilities', { capabilities });
    await qmp.execute('migrate-set-parameters', { 'max-bandwidth': 0 });
    return await work();
  } catch (error) {
    await qmp.execute('migrate-set-parameters', { 'max-bandwidth': bandwidth });
    await waitForStatus(qmp, 'failed', 'none');
    if (running) await qmp.execute('cont');
    throw error;
  }
}

async function waitForStatus(qmp: QmpClient, ...wanted: readonly string[]): Promise<void> {
  const endMs = performance.now() + WAIT_MS;
  for (;;) {
    const { status = 'none' } = (await qmp.execute('query-migrate')) as {
      readonly status?: string;
    };
    if (wanted.includes(status)) return;
    if (performance.now() > endMs) {
      throw new PagelaneError('ERR_QMP', `Source QEMU is not "${wanted[0]}": it says "${status}"`);
    }
    await sleep(LOOK_MS);
  }
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
