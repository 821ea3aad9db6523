import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import {
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
import { closeStage, openStage, PARITY_FLAG, readStage, STAGE_FLAGS, TTL_FLAG } from './stage.ts';

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
  '0 parked: quit the source QEMU · 1 not parked, guest at the source · 2 usage · 7 post-copy paused';

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
    await begin(qmp, `unix:${where.path}`);
    const channel = await listener.accept({ timeoutMs: WAIT_MS }).finally(() => listener.close());
    const keepTicket = (ticket: Ticket): Promise<void> => writeTicket(path, ticket);
    const { threads } = setThreads({});
    const parking = parkGuest(channel, { stage, codec, threads, keepTicket });
    const switching = switchOver(qmp);
    switching.catch(() => channel.destroy());
    const facts = await parking;
    await switching;
    await waitForStatus(qmp, 'completed');
    report(facts, { path, output });
    return 0;
  } finally {
    rmSync(folder, { recursive: true, force: true });
    await closeStage(stage.intermediaries);
  }
}

async function begin(qmp: QmpClient, uri: string): Promise<void> {
  await qmp.execute('migrate-set-capabilities', {
    capabilities: [{ capability: 'postcopy-ram', state: true }],
  });
  await qmp.execute('migrate', { uri });
}

/** As soon as QEMU can: what it sends before is sent twice. */
async function switchOver(qmp: QmpClient): Promise<void> {
  await waitForStatus(qmp, 'active');
  await qmp.execute('migrate-start-postcopy');
}

async function waitForStatus(qmp: QmpClient, wanted: string): Promise<void> {
  const endMs = performance.now() + WAIT_MS;
  for (;;) {
    const { status } = (await qmp.execute('query-migrate')) as { readonly status?: string };
    if (status === wanted) return;
    if (status === 'failed' || status === 'cancelled' || performance.now() > endMs) {
      throw new PagelaneError('ERR_QMP', `Source QEMU is not "${wanted}": it says "${status}"`);
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
