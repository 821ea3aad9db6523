import { randomBytes } from 'node:crypto';
import { cpSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { PagelaneError } from '../../src/errors.ts';
import type { Security } from '../../src/path/secure.ts';
import { connectSession } from '../../src/session/connect.ts';
import { type Listener, listenForSessions } from '../../src/session/listener.ts';
import { type Certificates, makeCertificates } from '../support/certificates.ts';
import { waitUntil } from '../support/lab/processes.ts';
import { collect, sendFilled } from './support.ts';

const TIMEOUT_MS = 20_000;

let certificates: Certificates;
let listener: Listener | undefined;

beforeAll(() => {
  certificates = makeCertificates();
});

afterEach(async () => {
  await listener?.close();
  listener = undefined;
});

afterAll(() => certificates.remove());

const NONE: Security = { kind: 'none' };
const KEY: Security = { kind: 'key', key: randomBytes(32) };
const OTHER_KEY: Security = { kind: 'key', key: randomBytes(32) };

function shown(directory: string): Security {
  return { kind: 'certificates', directory };
}

/** Connects twice over; says which error each end sees, if any. */
async function meet(there: Security, here: Security): Promise<[string, string]> {
  listener = await listenForSessions({ host: '127.0.0.1', port: 0, security: there });
  const seen: string[] = [];
  listener.onRefused = ({ code, message }: PagelaneError) => seen.push(`${code} ${message}`);
  const paths = [1, 2].map(() => ({ host: '127.0.0.1', port: listener!.port }));
  try {
    const session = await connectSession({ paths, security: here, requireAllPaths: true });
    const accepted = await listener.accept();
    sendFilled(session.openLane(), 1000, { value: 7 });
    const messages = collect(await accepted.acceptLane());
    await waitUntil('the message', () => messages.length === 1, { timeoutMs: TIMEOUT_MS });
    expect([...messages[0]!.payload]).toEqual(Array(1000).fill(7));
    messages[0]!.release();
    await Promise.all([session.close(), accepted.close()]);
    return ['none', seen.join()];
  } catch (error) {
    const { code, message } = error as PagelaneError;
    await waitUntil('the listener to notice', () => seen.length > 0, { timeoutMs: TIMEOUT_MS });
    return [`${code} ${message}`, seen.join()];
  }
}

describe('Session between two that trust each other', () => {
  test.each([
    ['by a key', () => KEY],
    ['by certificates', () => shown(certificates.directory)],
    ['blindly', () => NONE],
  ])('%s', async (_what, make) => {
    expect(await meet(make(), make())).toEqual(['none', '']);
  });
});

describe('Session between two that do not trust each other', () => {
  /** What the two ends are shown, and what the one that dials must be told. */
  const cases: readonly [string, () => Security, () => Security, RegExp][] = [
    ['another key', () => KEY, () => OTHER_KEY, /the keys differ/],
    [
      'a server of another authority',
      () => shown(certificates.foreign),
      () => shown(certificates.directory),
      /not of the authority/,
    ],
    [
      'a server of another host',
      () => shown(certificates.otherHost),
      () => shown(certificates.directory),
      /another host/,
    ],
    [
      'a server that has expired',
      () => shown(certificates.expired),
      () => shown(certificates.directory),
      /expired/,
    ],
    [
      'a client of another authority',
      () => mixed('foreign-client', { server: 'directory', client: 'foreign' }),
      () => mixed('foreign-client', { server: 'directory', client: 'foreign' }),
      /^ERR_PATH_LOST .* the peer (closed|reset) it/,
    ],
    [
      'a client that has expired',
      () => mixed('expired-client', { server: 'directory', client: 'expired' }),
      () => mixed('expired-client', { server: 'directory', client: 'expired' }),
      /^ERR_PATH_LOST .* the peer (closed|reset) it/,
    ],
    ['a key, and certificates', () => KEY, () => shown(certificates.directory), /do not agree/],
    ['certificates, and a key', () => shown(certificates.directory), () => KEY, /authority/],
    ['no TLS, and a key', () => NONE, () => KEY, /TLS/],
    ['a key, and no TLS', () => KEY, () => NONE, /TLS/],
  ];

  test.each(cases)('fails on both sides: %s', async (_what, there, here, told) => {
    const [client, server] = await meet(there(), here());
    expect(client).toMatch(/^ERR_PATH_(SECURITY|LOST) /);
    expect(client).toMatch(told);
    expect(server).toMatch(/^ERR_PATH_(SECURITY|LOST) /);
  });
});

/** A directory with the server's files of one, and the client's of another. */
function mixed(
  name: string,
  from: { readonly server: 'directory'; readonly client: 'foreign' | 'expired' },
): Security {
  const directory = join(dirname(certificates.directory), name);
  cpSync(certificates[from.server], directory, { recursive: true });
  for (const file of ['client-cert.pem', 'client-key.pem']) {
    cpSync(join(certificates[from.client], file), join(directory, file));
  }
  return shown(directory);
}

test.each(['ca-cert.pem', 'server-cert.pem', 'server-key.pem'])(
  'a listener says which file is missing: %s',
  async (file) => {
    const directory = join(dirname(certificates.directory), `without-${file}`);
    cpSync(certificates.directory, directory, { recursive: true });
    rmSync(join(directory, file));
    const security = shown(directory);
    const listening = listenForSessions({ host: '127.0.0.1', port: 0, security });
    await expect(listening).rejects.toMatchObject({
      code: 'ERR_PATH_SECURITY',
      message: `Cannot read certificate or key ${join(directory, file)}: ENOENT`,
    });
  },
);

test.each(['ca-cert.pem', 'client-cert.pem', 'client-key.pem'])(
  'who dials says which file is missing: %s',
  async (file) => {
    const directory = join(dirname(certificates.directory), `without-${file}`);
    cpSync(certificates.directory, directory, { recursive: true });
    rmSync(join(directory, file));
    const paths = [{ host: '127.0.0.1', port: 1 }];
    await expect(connectSession({ paths, security: shown(directory) })).rejects.toMatchObject({
      code: 'ERR_PATH_SECURITY',
      message: `Cannot read certificate or key ${join(directory, file)}: ENOENT`,
    });
  },
);

/** Copies of the right certificates, one file of which is another. */
function spoilt(file: string, content: string): Security {
  const directory = join(dirname(certificates.directory), `spoilt-${file}`);
  cpSync(certificates.directory, directory, { recursive: true });
  cpSync(content, join(directory, file));
  return shown(directory);
}

describe.each(['ca-cert.pem', 'server-cert.pem', 'server-key.pem'])(
  'A file that is wrong',
  (file) => {
    test(`is named by a listener: ${file}`, async () => {
      const security = spoilt(file, import.meta.filename);
      const listening = listenForSessions({ host: '127.0.0.1', port: 0, security });
      await expect(listening).rejects.toMatchObject({
        code: 'ERR_PATH_SECURITY',
        message: expect.stringContaining(`Cannot read certificate or key`),
      });
      await expect(listening).rejects.toThrow(`${file}: `);
    });

    test(`is named by who dials: ${file}`, async () => {
      const name = file.replace('server', 'client');
      const security = spoilt(name, import.meta.filename);
      const paths = [{ host: '127.0.0.1', port: 1 }];
      const connecting = connectSession({ paths, security });
      await expect(connecting).rejects.toMatchObject({ code: 'ERR_PATH_SECURITY' });
      await expect(connecting).rejects.toThrow(`${name}: `);
    });
  },
);

test('a key of another certificate is named', async () => {
  const security = spoilt('server-key.pem', join(certificates.directory, 'client-key.pem'));
  const listening = listenForSessions({ host: '127.0.0.1', port: 0, security });
  await expect(listening).rejects.toThrow('server-key.pem: it is not the key of server-cert.pem');
});
