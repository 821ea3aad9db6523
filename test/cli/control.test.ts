import { existsSync, mkdirSync } from 'node:fs';
import { PassThrough } from 'node:stream';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { startControl } from '../../src/cli/control.ts';
import { ls } from '../../src/cli/ls.ts';
import { UsageError } from '../../src/cli/options.ts';
import { path } from '../../src/cli/path.ts';
import { Reporter } from '../../src/cli/report.ts';
import { set } from '../../src/cli/set.ts';
import { ControlServer, type MigrationStream, type Side } from '../../src/index.ts';
import { exchangeRaw, FakeSession, Folder, ID } from '../control/support.ts';

let folder: Folder;
let session: FakeSession;
const servers: ControlServer[] = [];
const written = { stdout: '', stderr: '' };

async function listen(fake: FakeSession, name: string, side: Side = 'source'): Promise<void> {
  const state = () => ({ name, side, phase: 'precopy', elapsedMs: 1500 }) as const;
  servers.push(await ControlServer.listen({ session: fake, state }));
}

beforeEach(async () => {
  folder = new Folder();
  vi.stubEnv('PAGELANE_CONTROL_DIR', folder.environment['PAGELANE_CONTROL_DIR']);
  for (const name of ['stdout', 'stderr'] as const) {
    written[name] = '';
    vi.spyOn(process[name], 'write').mockImplementation((text) => {
      written[name] += text;
      return true;
    });
  }
  session = new FakeSession();
  await listen(session, 'vm1');
});

afterEach(async () => {
  vi.restoreAllMocks();
  vi.unstubAllEnvs();
  for (const server of servers.splice(0)) await server.close();
  folder[Symbol.dispose]();
});

describe('pagelane ls', () => {
  test('is a table of the sessions', async () => {
    expect(await ls([])).toBe(0);
    expect(written.stdout).toBe(
      'session   name  side    phase    time   paths\n1a2b3c4d  vm1   source  precopy  1.5 s  2/2\n',
    );
    expect(written.stderr).toBe('');
  });

  test('says that there is none, and leaves stdout alone', async () => {
    await servers.pop()!.close();
    expect(await ls([])).toBe(0);
    expect(written).toEqual({
      stdout: '',
      stderr: 'pagelane: no migration runs here, as this user\n',
    });
    expect(await ls(['--output', 'ndjson'])).toBe(0);
    expect(written.stdout).toBe('{"v":1,"type":"sessions","sessions":[]}\n');
  });

  test('json has every field', async () => {
    expect(await ls(['--output', 'json'])).toBe(0);
    const paths = JSON.parse(JSON.stringify(session.paths));
    expect(JSON.parse(written.stdout)).toEqual({
      v: 1,
      type: 'sessions',
      sessions: [{ id: ID, name: 'vm1', side: 'source', phase: 'precopy', elapsedMs: 1500, paths }],
    });
  });
});

describe('pagelane path', () => {
  test('ls is a table of the paths', async () => {
    expect(await path(['ls', 'vm1'])).toBe(0);
    expect(written.stdout).toMatch(/^id {2}state .*\n0 {3}open .*\n1 {3}open .*\n$/);
  });

  test('add and rm change them, and show them', async () => {
    expect(await path(['add', '1a2b', '10.3.0.1@10.3.0.2:7700,max=8kbit'])).toBe(0);
    expect(written.stdout).toMatch(/\n2 .*10\.3\.0\.2:7700/);
    expect(await path(['rm', 'vm1', '10.3.0.2'])).toBe(0);
    expect(written.stdout).toMatch(/\n2 {3}closed/);
    expect(session.log).toEqual([
      'addPath {"host":"10.3.0.2","port":7700,"local":"10.3.0.1","maxBytesPerSecond":1000}',
      'removePath 2',
    ]);
  });

  test('means the source, unless the other end is asked for', async () => {
    const other = new FakeSession();
    await listen(other, 'vm1', 'destination');
    await path(['rm', 'vm1', '0']);
    await path(['rm', 'vm1', '1', '--side', 'destination']);
    expect([session.log, other.log]).toEqual([['removePath 0'], ['removePath 1']]);
  });

  test('json has the session, on one line with ndjson', async () => {
    await path(['ls', 'vm1', '--output', 'ndjson']);
    expect(written.stdout).toMatch(/^[^\n]*\n$/);
    expect(JSON.parse(written.stdout)).toMatchObject({
      v: 1,
      type: 'session',
      id: ID,
      name: 'vm1',
    });
  });

  test('a failure is told to programs as well', async () => {
    const wanted = { code: 'ERR_CONTROL_PATH', message: expect.stringMatching(/No path "7"/) };
    await expect(path(['rm', 'vm1', '7'])).rejects.toMatchObject(wanted);
    expect(written.stdout).toBe('');
    await expect(path(['rm', 'vm1', '7', '--output', 'json'])).rejects.toMatchObject(wanted);
    expect(JSON.parse(written.stdout)).toEqual({ v: 1, type: 'error', error: wanted });
  });

  test('a session that is not here', async () => {
    const wanted = { code: 'ERR_CONTROL_SESSION' };
    await expect(path(['ls', 'vm2'])).rejects.toMatchObject(wanted);
  });
});

describe('pagelane set', () => {
  test('limits the session, or one path, and ends limits', async () => {
    await set(['vm1', '--max-bandwidth', '200mbit']);
    await set(['vm1', '--max-bandwidth', 'off']);
    await set(['vm1', '--max-bandwidth', '1MB', '--path', '10.2.0.2:7700']);
    expect(written.stdout).toMatch(/\n1 .* 8 Mbit\/s\n$/);
    await set(['vm1', '--max-bandwidth', 'off', '--path', '1']);
    expect(session.log).toEqual([
      'setMaxBandwidth 25000000',
      'setMaxBandwidth undefined',
      'setPathMaxBandwidth 1 1000000',
      'setPathMaxBandwidth 1 undefined',
    ]);
  });

  test('the environment of "send" is not meant', async () => {
    vi.stubEnv('PAGELANE_MAX_BANDWIDTH', '1gbit');
    vi.stubEnv('PAGELANE_PATH', 'a:1 b:2');
    vi.stubEnv('PAGELANE_OUTPUT', 'ndjson');
    expect(() => set(['vm1'])).toThrow(/give --max-bandwidth RATE\|off, or/);
    await set(['vm1', '--max-bandwidth', 'off']);
    expect(session.log).toEqual(['setMaxBandwidth undefined']);
    expect(JSON.parse(written.stdout)).toMatchObject({ type: 'session' });
  });
});

const COMMANDS: Readonly<Record<string, typeof ls>> = { ls, path, set };

describe('a mistake on the command line says which', () => {
  test.each([
    ['ls', ['vm1'], /unexpected "vm1"/],
    ['ls', ['--side', 'source'], /Unknown option '--side'/],
    ['ls', ['--output', 'xml'], /--output: "xml" is none of text, json, ndjson/],
    ['path', [], /path takes ls, add or rm$/],
    ['path', ['list'], /path takes ls, add or rm, not "list"/],
    ['path', ['ls'], /give pagelane path ls SESSION/],
    ['path', ['ls', 'vm1', 'vm2'], /give pagelane path ls SESSION/],
    ['path', ['add', 'vm1'], /give pagelane path add SESSION \[LOCAL@\]HOST:PORT/],
    ['path', ['add', 'vm1', 'host'], /Cannot read path "host"/],
    ['path', ['add', 'vm1', 'h:1,max=fast'], /Cannot read rate "fast"/],
    ['path', ['add', 'vm1', 'auto'], /"auto" may be several paths/],
    ['path', ['add', 'vm1', '10.0.0.0/24'], /"10\.0\.0\.0\/24" may be several paths/],
    ['path', ['rm', 'vm1'], /give pagelane path rm SESSION PATH/],
    ['path', ['ls', 'vm1', '--side', 'both'], /--side: "both" is none of source, destination/],
    ['set', [], /set takes one SESSION/],
    ['set', ['vm1', 'vm2'], /set takes one SESSION/],
    ['set', ['vm1'], /give --max-bandwidth RATE\|off, or/],
    ['set', ['vm1', '--max-bandwidth', '0mbit'], /--max-bandwidth: Cannot read rate/],
  ])('%s %j', (name, args, says) => {
    const command = COMMANDS[name]!;
    expect(() => command(args)).toThrow(UsageError);
    expect(() => command(args)).toThrow(says);
    expect(session.log).toEqual([]);
  });

  test.each(Object.keys(COMMANDS))('%s --help says how', async (name) => {
    expect(await COMMANDS[name]!(['--help'])).toBe(0);
    expect(written.stdout.startsWith(`Usage: pagelane ${name} `)).toBe(true);
    for (const line of written.stdout.split('\n')) expect(line.length).toBeLessThanOrEqual(110);
  });
});

describe('startControl()', () => {
  const ABOUT = { name: 'vm9', side: 'destination' } as const;
  const migration = {
    progress: () => ({ phase: 'postcopy', elapsedMs: 7 }),
  } as unknown as MigrationStream;

  function makeReporter(): { reporter: Reporter; stderr: () => string } {
    const streams = { stdout: new PassThrough(), stderr: new PassThrough() };
    const options = { output: 'text', isQuiet: false, intervalMs: undefined } as const;
    const reporter = new Reporter({ ...options, ...streams });
    return { reporter, stderr: () => String(streams.stderr.read() ?? '') };
  }

  test('tells how to reach the migration, and tells of it', async () => {
    const { reporter, stderr } = makeReporter();
    const server = (await startControl(session, migration, { ...ABOUT, reporter }))!;
    servers.push(server);
    expect(stderr()).toBe('pagelane: control: pagelane path ls 1a2b3c4d\n');
    const answer = await exchangeRaw(server.path, '{"v":1,"verb":"report"}\n');
    const wanted = { name: 'vm9', side: 'destination', phase: 'postcopy', elapsedMs: 7 };
    expect(JSON.parse(answer)).toMatchObject({ session: wanted });
  });

  test('warns where it cannot be, and does no harm', async () => {
    const directory = `${folder.path}/open`;
    mkdirSync(directory, { mode: 0o755 });
    vi.stubEnv('PAGELANE_CONTROL_DIR', directory);
    const { reporter, stderr } = makeReporter();
    expect(await startControl(session, migration, { ...ABOUT, reporter })).toBeUndefined();
    expect(stderr()).toMatch(/^pagelane: warning: no "pagelane path".*others may enter it/);
    expect(existsSync(directory)).toBe(true);
  });
});
