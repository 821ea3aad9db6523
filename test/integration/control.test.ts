// Requires: the built command.
import { chmodSync, mkdirSync, readdirSync, statSync } from 'node:fs';
import { afterEach, expect, test, vi } from 'vitest';
import { BOUND_MS, Commands, ended, resultOf } from '../support/command.ts';
import { FakeDestination, FakeSource, shut } from '../support/fake-qemu.ts';
import { type RunningProcess, waitUntil } from '../support/lab/processes.ts';
import { smallStream } from '../support/small-stream.ts';

const STREAM = smallStream();

afterEach(() => {
  vi.unstubAllEnvs();
});

/** Both ends of a migration of vm1, whose QEMUs are driven by the test. */
class Running implements AsyncDisposable {
  readonly commands = new Commands();
  sender!: RunningProcess;
  receiver!: RunningProcess;
  port = 0;
  source!: FakeSource;
  destination!: FakeDestination;

  /** Starts both ends; their control sockets are in `directory`, which may be there with a mode. */
  static async begin({
    words = [],
    mode,
  }: {
    readonly words?: readonly string[];
    readonly mode?: number;
  } = {}): Promise<Running> {
    const running = new Running();
    const { commands, directory } = running;
    vi.stubEnv('PAGELANE_CONTROL_DIR', directory);
    if (mode !== undefined) {
      mkdirSync(directory);
      chmodSync(directory, mode);
    }
    const all = ['--output', 'ndjson', ...words];
    running.destination = await FakeDestination.listen(commands.in);
    const { receiver, port } = await commands.receive(all);
    running.receiver = receiver;
    running.port = port;
    running.sender = await commands.send(port, [...all, '--name', 'vm1', '--codec', 'none']);
    running.source = await FakeSource.connect(commands.out);
    return running;
  }

  get directory(): string {
    return this.commands.path('control');
  }

  /** The record that a command writes, once it has done what it should. */
  async ask(...words: string[]): Promise<Record<string, unknown>> {
    const { code, stdout, stderr } = await this.commands.run([...words, '--output', 'json']);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    return JSON.parse(stdout);
  }

  /** Waits until both ends can be asked. */
  async untilListening(): Promise<void> {
    const sockets = (): boolean => socketsIn(this.directory).length === 2;
    await waitUntil('both control sockets', sockets, { timeoutMs: BOUND_MS });
  }

  /** Lets the migration end well, once the destination has everything. */
  async finish(): Promise<{ sent: ReturnType<typeof resultOf> }> {
    const { source, destination } = this;
    await destination.untilBytes(STREAM.length, BOUND_MS);
    expect(Buffer.compare(destination.received(), STREAM)).toBe(0);
    destination.write(shut(0));
    await waitUntil('the word of the destination', () => source.received().length === 8, {
      timeoutMs: BOUND_MS,
    });
    source.close();
    const [sent, received] = [await ended(this.sender), await ended(this.receiver)];
    expect([sent.code, received.code]).toEqual([0, 0]);
    return { sent: resultOf(sent.stdout) };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.source?.[Symbol.asyncDispose]();
    await this.destination?.[Symbol.asyncDispose]();
    await this.commands[Symbol.asyncDispose]();
  }
}

function socketsIn(directory: string): string[] {
  try {
    return readdirSync(directory).filter((name) => name.endsWith('.sock'));
  } catch {
    return [];
  }
}

test('paths are listed, added, limited and removed while the guest moves', async () => {
  await using running = await Running.begin();
  const { source, destination, commands, port } = running;
  await running.untilListening();
  const { sessions } = await running.ask('ls');
  const about = { name: 'vm1', elapsedMs: expect.any(Number), paths: [{ id: 0, state: 'open' }] };
  expect(sessions).toMatchObject([
    { ...about, side: 'destination' },
    { ...about, side: 'source', phase: 'setup' },
  ]);
  const [{ id }] = sessions as [{ id: string }];
  expect(running.sender.stderr()).toContain(`control: pagelane path ls ${id.slice(0, 8)}`);

  source.write(STREAM.slice(0, -300));
  await destination.untilBytes(STREAM.length - 300, BOUND_MS);
  const place = `127.0.0.2@127.0.0.1:${port},max=800mbit`;
  const added = await running.ask('path', 'add', id.slice(0, 8), place);
  const second = { local: expect.stringMatching(/^127\.0\.0\.2:/), state: 'open' };
  expect(added).toMatchObject({ phase: 'switchover', paths: [{ id: 0 }, second] });
  const limited = await running.ask('set', 'vm1', '--max-bandwidth', '1MB', '--path', '127.0.0.2');
  expect(limited).toMatchObject({ paths: [{ id: 0 }, { ...second, maxBytesPerSecond: 1e6 }] });
  const removed = await running.ask('path', 'rm', 'vm1', '0');
  const open = (removed['paths'] as { state: string }[]).filter(({ state }) => state === 'open');
  expect(open).toMatchObject([second]);
  const { stdout } = await commands.run(['path', 'ls', 'vm1']);
  expect(stdout).toMatch(/^\d+ +(open|parked) +127\.0\.0\.2:\d+ .* 8 Mbit\/s$/m);

  const last = await commands.run(['path', 'rm', 'vm1', '127.0.0.2']);
  expect(last).toMatchObject({ code: 1, stdout: '' });
  expect(last.stderr).toMatch(/^pagelane: ERR_CONTROL_PATH: .*\n {2}to do: .*add a path/);

  source.write(STREAM.slice(-300));
  const { sent } = await running.finish();
  expect(sent.paths).toHaveLength(2);
  expect(socketsIn(running.directory)).toEqual([]);
  expect(await commands.run(['ls'])).toMatchObject({ code: 0, stdout: '' });
});

test('a limit holds from the start, and is taken away', async () => {
  await using running = await Running.begin({ words: ['--max-bandwidth', '8kbit'] });
  const { source, destination } = running;
  await running.untilListening();
  source.write(STREAM);
  const flows = async (): Promise<boolean> =>
    (await running.ask('path', 'ls', 'vm1'))['phase'] !== 'setup';
  await waitUntil('the migration to begin', flows, { timeoutMs: BOUND_MS });
  expect(destination.received().length).toBeLessThan(STREAM.length);
  await running.ask('set', 'vm1', '--max-bandwidth', 'off');
  await running.finish();
});

test('the destination opens no path, and says where it is done', async () => {
  await using running = await Running.begin();
  await running.untilListening();
  const words = ['path', 'add', 'vm1', '127.0.0.1:1', '--side', 'destination'];
  const { code, stderr } = await running.commands.run(words);
  expect(stderr).toMatch(
    /^pagelane: ERR_CONTROL_SIDE: .*only the source.*\n {2}to do: .*source\n$/,
  );
  expect(code).toBe(1);
});

test('a process that is killed leaves nothing that the next "ls" does not remove', async () => {
  await using running = await Running.begin();
  await running.untilListening();
  for (const name of readdirSync(running.directory)) {
    expect(statSync(`${running.directory}/${name}`).mode & 0o777).toBe(0o600);
  }
  await running.sender.stop('SIGKILL');
  await running.receiver.stop('SIGKILL');
  expect(socketsIn(running.directory)).toHaveLength(2);
  expect(await running.ask('ls')).toMatchObject({ sessions: [] });
  expect(socketsIn(running.directory)).toEqual([]);
});

test('without a control socket the guest moves all the same', async () => {
  await using running = await Running.begin({ mode: 0o755 });
  running.source.write(STREAM);
  await running.finish();
  for (const { stderr } of [running.sender, running.receiver]) {
    expect(stderr()).toMatch(/warning: no "pagelane path".*others may enter it: its mode is 755/);
  }
  expect(readdirSync(running.directory)).toEqual([]);
});
