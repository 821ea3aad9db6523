import {
  parseQemuAddress,
  QemuChannel,
  readTicket,
  setThreads,
  type UnparkFacts,
  unparkGuest,
} from '../index.ts';
import { type Flags, formatControlHelp, readArguments, readFlag, UsageError } from './options.ts';
import { print } from './report.ts';
import { readGather, STAGE_FLAGS } from './stage.ts';

/* Chosen by us */
const WAIT_MS = 60_000;

const FLAGS: Flags = {
  qemu: {
    type: 'string',
    value: '-|unix:PATH|tcp:HOST:PORT',
    help: 'where QEMU listens (-incoming); - (default) is stdin and stdout',
  },
  recover: {
    type: 'boolean',
    help: "QEMU's post-copy is paused (migrate-recover): send what it has not yet",
  },
  ...STAGE_FLAGS,
  output: { type: 'string', value: 'text|json', help: 'form of the result on stdout' },
  help: { type: 'boolean', help: 'this text' },
};

const USAGE = 'pagelane gather TICKET --qemu unix:PATH [options]';
const EXAMPLES = [
  'pagelane gather vm1.ticket --qemu unix:/run/vm1.in         QEMU: -incoming unix:/run/vm1.in',
  'pagelane gather vm1.ticket --recover --qemu unix:/run/2    QEMU: migrate-recover unix:/run/2',
];
const EXIT_CODES =
  '0 the guest runs there · 1 not gathered: it is still parked · 2 usage · 7 post-copy paused';

/** `pagelane gather`: a parked virtual machine back into a QEMU. */
export async function gather(args: readonly string[]): Promise<number> {
  const { values, positionals } = readArguments(args, FLAGS, process.env);
  if (values.is('help')) {
    print(formatControlHelp(USAGE, EXAMPLES, FLAGS, EXIT_CODES));
    return 0;
  }
  const [path, ...rest] = positionals;
  if (path === undefined || rest.length > 0) throw new UsageError('give the ticket of the guest');
  const qemu = readFlag('qemu', values.text('qemu') ?? '-', parseQemuAddress);
  const output = values.text('output') ?? 'text';
  const settings = readGather(values);
  const ticket = await readTicket(path);
  setThreads({});
  const openChannel = (): Promise<QemuChannel> => QemuChannel.connect(qemu, { timeoutMs: WAIT_MS });
  const isRecovery = values.is('recover');
  const facts = await unparkGuest(ticket, { settings, openChannel, isRecovery });
  report(facts, output, qemu.kind === 'stdio');
  return 0;
}

function report(facts: UnparkFacts, output: string, isData: boolean): void {
  const line =
    output === 'json'
      ? JSON.stringify({ v: 1, type: 'gathered', ...facts })
      : `gathered in ${facts.durationMs} ms; the guest ran after ${facts.runningMs ?? '?'} ms`;
  if (isData) process.stderr.write(`${line}\n`);
  else print(`${line}\n`);
}
