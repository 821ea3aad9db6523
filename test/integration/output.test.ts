// Requires: the built command.
import { spawn } from 'node:child_process';
import { expect, test } from 'vitest';
import { BOUND_MS, Commands, type Ended, ended, jsonLines, resultOf } from '../support/command.ts';
import { FakeDestination, FakeSource, shut } from '../support/fake-qemu.ts';
import { commandLine, type RunningProcess, waitUntil } from '../support/lab/processes.ts';
import { PAGELANE } from '../support/pagelane.ts';
import { smallStream } from '../support/small-stream.ts';

/** Fields that docs/cli.md says a result record has, but for `error`. */
const RESULT_FIELDS = [
  ...['v', 'type', 'side', 'session', 'name', 'outcome', 'guest', 'durationMs', 'downtimeMs'],
  ...['memoryBytes', 'streamBytes', 'wireBytes', 'pages', 'codecs', 'store', 'resent', 'paths'],
  ...['rounds'],
  ...['cpuSeconds', 'digest', 'effective', 'fallbacks'],
].sort();
const PATH_FIELDS = ['isLost', 'local', 'remote', 'rttMs', 'wireBytes'];

/** Brings a small guest over, between the start of both commands and their end. */
async function carry(
  commands: Commands,
  { pauses = false }: { pauses?: boolean } = {},
): Promise<void> {
  await using destination = await FakeDestination.listen(commands.in);
  await using source = await FakeSource.connect(commands.out);
  const stream = smallStream();
  source.write(stream.slice(0, -300));
  await destination.untilBytes(stream.length - 300, BOUND_MS);
  if (pauses) await untilProgress(commands);
  source.write(stream.slice(-300));
  await destination.untilBytes(stream.length, BOUND_MS);
  destination.write(shut(0));
  await waitUntil('the word of the destination', () => source.received().length === 8, {
    timeoutMs: BOUND_MS,
  });
  source.close();
}

const followed = new Map<Commands, readonly RunningProcess[]>();

/** Waits until both commands have told how far they are. */
async function untilProgress(commands: Commands): Promise<void> {
  for (const process of followed.get(commands) ?? []) {
    await waitUntil('a progress report', () => process.stdout().includes('"type":"progress"'), {
      timeoutMs: BOUND_MS,
    });
  }
}

async function run(output: string): Promise<{ sent: Ended; received: Ended }> {
  await using commands = new Commands();
  const words = ['--output', output, '--interval', '20ms'];
  const { receiver, port } = await commands.receive(words);
  const sender = await commands.send(port, [...words, '--name', 'vm1']);
  if (output === 'ndjson') followed.set(commands, [sender, receiver]);
  await carry(commands, { pauses: output === 'ndjson' });
  followed.delete(commands);
  return { sent: await ended(sender), received: await ended(receiver) };
}

function expectResults(sent: Record<string, unknown>, received: Record<string, unknown>): void {
  for (const result of [sent, received]) {
    expect(Object.keys(result).sort()).toEqual(RESULT_FIELDS);
    expect(result).toMatchObject({ v: 1, type: 'result', name: 'vm1' });
    expect(result).toMatchObject({ outcome: 'completed', guest: 'destination' });
    expect(result).toMatchObject({ memoryBytes: 64 * 4096, pages: { raw: 128 } });
    expect(result['digest']).toMatchObject({ equal: true });
    expect(result['streamBytes']).toBe(smallStream().length);
    for (const path of result['paths'] as object[]) {
      expect(Object.keys(path).sort()).toEqual(PATH_FIELDS);
    }
  }
  expect([sent['side'], received['side']]).toEqual(['source', 'destination']);
  expect(sent['rounds']).toBe(2);
  expect(sent['session']).toBe(received['session']);
  expect(sent['digest']).toEqual(received['digest']);
  const { switchover } = sent['downtimeMs'] as { switchover: number };
  expect(switchover).toBeGreaterThanOrEqual(0);
  expect(switchover).toBeLessThanOrEqual(sent['durationMs'] as number);
}

test('--output json writes the result record and nothing else to stdout', async () => {
  const { sent, received } = await run('json');
  expectResults(JSON.parse(sent.stdout), JSON.parse(received.stdout));
  expect([sent.code, received.code]).toEqual([0, 0]);
});

test('--output ndjson writes a line per event, and the result last', async () => {
  const { sent, received } = await run('ndjson');
  expectResults({ ...resultOf(sent.stdout) }, { ...resultOf(received.stdout) });
  for (const { stdout } of [sent, received]) {
    const lines = jsonLines(stdout);
    const events = lines.slice(0, -1);
    for (const event of events) {
      expect(event['v']).toBe(1);
      expect(new Date(event['ts'] as string).toISOString()).toBe(event['ts']);
    }
    const types = new Set(events.map((event) => event['type']));
    expect(types).toEqual(new Set(['pathOpened', 'progress', 'closed']));
    const progress = events.find((event) => event['type'] === 'progress')!;
    expect(progress).toMatchObject({ pathsOpen: 1, pathsAll: 1, codecs: expect.any(Object) });
  }
});

test('--output text leaves stdout alone and says the result to people', async () => {
  const { sent, received } = await run('text');
  for (const { stdout, stderr } of [sent, received]) {
    expect(stdout).toBe('');
    expect(stderr).toMatch(/^completed: guest at the destination after .*, 256 KiB of memory/m);
    expect(stderr).toMatch(/digest equal \([0-9a-f]{16}\)/);
  }
});

test('an end that fails early writes a result as well', async () => {
  await using commands = new Commands();
  for (const output of ['json', 'ndjson']) {
    const { code, stdout } = await commands.run(commands.sendWords(1, ['--output', output]));
    const result = JSON.parse(stdout);
    expect(Object.keys(result).sort()).toEqual([...RESULT_FIELDS, 'error'].sort());
    expect(result).toMatchObject({ side: 'source', outcome: 'failed', guest: 'source' });
    expect(result.error).toMatchObject({ code: 'ERR_PATH_REFUSED', phase: 'setup' });
    expect(code).toBe(1);
  }
});

test('SIGINT before a migration ran: code 130, told to people and programs', async () => {
  await using commands = new Commands();
  const words = ['--output', 'ndjson'];
  const { receiver, port } = await commands.receive(words);
  const sender = await commands.send(port, words);
  sender.signal('SIGINT');
  const sent = await ended(sender);
  expect(sent.code).toBe(130);
  expect(resultOf(sent.stdout)).toMatchObject({
    outcome: 'cancelled',
    guest: 'source',
    error: { code: 'ERR_CANCELLED', phase: 'setup' },
  });
  // The other end had begun to wait for this migration.
  expect((await ended(receiver)).code).toBe(5);

  const { receiver: alone } = await commands.receive();
  alone.signal('SIGINT');
  const { code, stderr } = await ended(alone);
  expect(stderr).toMatch(/ERR_CANCELLED \(destination, setup\): Interrupted before a migration/);
  expect(stderr).toMatch(/guest: at the source, where it runs on; the migration was cancelled/);
  expect(code).toBe(130);
});

test('a reader of stdout or stderr that goes away does not take the migration with it', async () => {
  await using commands = new Commands();
  const words = ['--output', 'ndjson', '--interval', '20ms'];
  const { receiver, port } = await commands.receive(words);
  const [program, ...rest] = commandLine([...PAGELANE, ...commands.sendWords(port, words)]);
  const sender = spawn(program, rest, { stdio: ['ignore', 'pipe', 'pipe'] });
  try {
    let said = '';
    sender.stderr.setEncoding('utf8').on('data', (text: string) => {
      said += text;
    });
    await waitUntil('send to be ready', () => said.includes('ready; in QEMU'), {
      timeoutMs: BOUND_MS,
    });
    sender.stdout.destroy();
    sender.stderr.destroy();
    followed.set(commands, [receiver]);
    await carry(commands, { pauses: true });
    await waitUntil('send to end', () => sender.exitCode !== null, { timeoutMs: BOUND_MS });
    expect(sender.exitCode).toBe(0);
    expect((await ended(receiver)).code).toBe(0);
  } finally {
    followed.delete(commands);
    sender.kill('SIGKILL');
  }
});
