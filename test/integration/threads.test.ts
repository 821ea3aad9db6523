// Requires: the built command.
import { expect, test } from 'vitest';
import { native } from '../../src/native.ts';
import { addonThreads, threadsLike, withoutNiceRight } from '../support/addon-threads.ts';
import { BOUND_MS, Commands, ended, failureOf, resultOf } from '../support/command.ts';
import { FakeDestination, FakeSource, shut } from '../support/fake-qemu.ts';
import { startProcess, waitUntil } from '../support/lab/processes.ts';
import { PAGELANE } from '../support/pagelane.ts';
import { smallStream } from '../support/small-stream.ts';

const CPU = native.usableProcessors().at(-1)!;
const WORDS = ['--cpu-set', `${CPU}`, '--threads', '2', '--priority', '7', '--output', 'ndjson'];

test('both ends keep their threads where --cpu-set and --priority say, and state it', async () => {
  await using commands = new Commands();
  const { receiver, port } = await commands.receive(WORDS);
  const sender = await commands.send(port, WORDS);
  await using destination = await FakeDestination.listen(commands.in);
  await using source = await FakeSource.connect(commands.out);
  const stream = smallStream();
  source.write(stream);
  await destination.untilBytes(stream.length, BOUND_MS);
  for (const { pid } of [sender, receiver]) {
    expect(addonThreads(pid)).toEqual(threadsLike(2, `${CPU}`, 7));
  }
  destination.write(shut(0));
  await waitUntil('the word of the destination', () => source.received().length === 8, {
    timeoutMs: BOUND_MS,
  });
  source.close();
  for (const process of [sender, receiver]) {
    const { stdout } = await ended(process);
    expect(resultOf(stdout)).toMatchObject({
      outcome: 'completed',
      effective: { threads: 2, cpuSet: `${CPU}`, priority: 7 },
    });
  }
});

test('PAGELANE_CPU_SET and PAGELANE_PRIORITY are the same, and give the count', async () => {
  await using commands = new Commands();
  const env = { PAGELANE_CPU_SET: `${CPU}`, PAGELANE_PRIORITY: '3' };
  const receiver = commands.start(
    ['receive', '--listen', '127.0.0.1:0', '--qemu', 'null:', ...commands.keyWords],
    { env },
  );
  await waitUntil('pagelane receive to listen', () => receiver.stderr().includes('listening on'), {
    timeoutMs: BOUND_MS,
  });
  await expect.poll(() => addonThreads(receiver.pid)).toEqual(threadsLike(1, `${CPU}`, 3));
});

test.each([
  ['source', ['send', '--to', '127.0.0.1:1']],
  ['destination', ['receive', '--listen', '127.0.0.1:0']],
])(
  'a priority that the system refuses is said before the %s does anything',
  async (side, words) => {
    await using commands = new Commands();
    const all = [...words, '--qemu', `unix:${commands.out}`, ...commands.keyWords];
    const command = withoutNiceRight([...PAGELANE, ...all, '--priority=-5']);
    await using process = startProcess(command);
    const { code, stderr } = await ended(process);
    const failure = failureOf(stderr);
    expect(failure).toMatchObject({ code: 'ERR_THREAD_PRIORITY', side, phase: 'setup' });
    expect(failure.message).toBe(
      'Cannot run threads at priority -5: the system refuses it (EACCES)',
    );
    expect(failure.advice).toMatch(/CAP_SYS_NICE/);
    expect(code).toBe(1);
  },
);
