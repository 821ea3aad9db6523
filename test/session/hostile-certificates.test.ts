import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import tls from 'node:tls';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { PagelaneError } from '../../src/errors.ts';
import type { Security } from '../../src/path/secure.ts';
import { connectSession } from '../../src/session/connect.ts';
import { type Listener, listenForSessions } from '../../src/session/listener.ts';
import { waitUntil } from '../support/lab/processes.ts';

/* Chosen by us */
const TIMEOUT_MS = 20_000;
const HOST = '127.0.0.1';

/** What an authority can be asked for. */
interface Wish {
  readonly names?: string;
  /** What the certificate may be used for. */
  readonly usage?: 'serverAuth' | 'clientAuth';
  /** Days from now. */
  readonly from?: number;
  readonly to?: number;
  readonly isSelfSigned?: boolean;
  readonly isOfOtherAuthority?: boolean;
}

const WISHES: Readonly<Record<string, Wish>> = {
  server: { usage: 'serverAuth' },
  client: { usage: 'clientAuth' },
  elsewhere: { names: 'DNS:elsewhere.example' },
  nameless: { names: 'DNS:*' },
  expired: { from: -2, to: -1 },
  early: { from: 1, to: 2 },
  selfSigned: { isSelfSigned: true },
  foreign: { isOfOtherAuthority: true },
};

/** Certificates of every kind, made with the `openssl` command. */
class Authority {
  readonly root: string = mkdtempSync(join(tmpdir(), 'pagelane-authority-'));

  constructor() {
    for (const name of ['trusted', 'other']) this.#makeRoot(name);
    for (const [name, wish] of Object.entries(WISHES)) this.#make(name, wish);
  }

  /** A directory in which one side shows one of the certificates, and the other side another. */
  directory(shown: { readonly server: string; readonly client: string }): Security {
    const directory = mkdtempSync(join(this.root, 'shown-'));
    copyFileSync(join(this.root, 'trusted-cert.pem'), join(directory, 'ca-cert.pem'));
    for (const [side, name] of Object.entries(shown)) {
      for (const part of ['cert', 'key']) {
        copyFileSync(
          join(this.root, `${name}-${part}.pem`),
          join(directory, `${side}-${part}.pem`),
        );
      }
    }
    return { kind: 'certificates', directory };
  }

  remove(): void {
    rmSync(this.root, { recursive: true, force: true });
  }

  #makeRoot(name: string): void {
    mkdirSync(join(this.root, `${name}-ca`));
    const files = ['-keyout', `${name}-key.pem`, '-out', `${name}-cert.pem`];
    this.#openssl(['req', '-x509', ...NEW_KEY, ...files, '-days', '2', '-subj', `/CN=${name}`]);
    writeFileSync(join(this.root, `${name}-ca`, 'index'), '');
    writeFileSync(join(this.root, `${name}-ca`, 'serial'), '01');
    writeFileSync(join(this.root, `${name}.cnf`), configuration(this.root, name));
  }

  #make(name: string, wish: Wish): void {
    const { names = 'IP:127.0.0.1,DNS:localhost', usage, from = -1, to = 2 } = wish;
    const files = ['-keyout', `${name}-key.pem`, '-out', `${name}.csr`];
    this.#openssl(['req', ...NEW_KEY, ...files, '-subj', `/CN=${name}`]);
    const uses = usage === undefined ? '' : `extendedKeyUsage=${usage}\n`;
    writeFileSync(join(this.root, 'extensions'), `subjectAltName=${names}\n${uses}`);
    const authority = wish.isOfOtherAuthority === true ? 'other' : 'trusted';
    const selfSigned =
      wish.isSelfSigned === true ? ['-selfsign', '-keyfile', `${name}-key.pem`] : [];
    this.#openssl([
      ...['ca', '-batch', '-notext', '-config', `${authority}.cnf`, '-in', `${name}.csr`],
      ...['-out', `${name}-cert.pem`, '-extfile', 'extensions', ...selfSigned],
      ...['-startdate', dateIn(from), '-enddate', dateIn(to)],
    ]);
  }

  #openssl(args: readonly string[]): void {
    execFileSync('openssl', args, { cwd: this.root, stdio: 'pipe' });
  }
}

const NEW_KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];

function configuration(root: string, name: string): string {
  return [
    ...['[ca]', 'default_ca=this', '[this]', `database=${root}/${name}-ca/index`],
    ...[`new_certs_dir=${root}/${name}-ca`, `serial=${root}/${name}-ca/serial`],
    ...[`certificate=${root}/${name}-cert.pem`, `private_key=${root}/${name}-key.pem`],
    ...['default_md=sha256', 'policy=any', 'unique_subject=no', '[any]', 'commonName=supplied', ''],
  ].join('\n');
}

function dateIn(days: number): string {
  const date = new Date(Date.now() + days * 86_400_000).toISOString();
  return `${date.slice(0, 19).replace(/[-:T]/g, '')}Z`;
}

let authority: Authority;
let listener: Listener;
let refusals: string[];
let accepted: number;

beforeAll(() => {
  authority = new Authority();
});

afterAll(() => authority.remove());

beforeEach(() => {
  refusals = [];
  accepted = 0;
});

afterEach(() => listener.close());

async function listen(security: Security): Promise<void> {
  listener = await listenForSessions({ host: HOST, port: 0, security });
  listener.onRefused = ({ code, message }: PagelaneError) => refusals.push(`${code} ${message}`);
  const take = (): void => {
    accepted++;
    listener.accept().then(take, () => {});
  };
  listener.accept().then(take, () => {});
}

/** What a client is told that connects; `none` if it gets in. */
async function dial(security: Security): Promise<string> {
  const paths = [{ host: HOST, port: listener.port }];
  try {
    const session = await connectSession({ security, paths });
    await session.close();
    return 'none';
  } catch (error) {
    if (!(error instanceof PagelaneError)) throw error;
    return `${error.code} ${error.message}`;
  }
}

async function expectRefused(pattern: RegExp): Promise<void> {
  await waitUntil('the listener to notice', () => refusals.length > 0, { timeoutMs: TIMEOUT_MS });
  expect(refusals.length).toBe(1);
  expect(refusals[0]).toMatch(pattern);
  expect(accepted).toBe(0);
}

test('Certificates that say what they are for are good for it', async () => {
  const right = authority.directory({ server: 'server', client: 'client' });
  await listen(right);
  expect(await dial(right)).toBe('none');
});

describe('A client does not trust a server whose certificate', () => {
  test.each([
    ['is of another host', 'elsewhere', /ERR_PATH_SECURITY .*another host/],
    ['is of any host', 'nameless', /ERR_PATH_SECURITY .*another host/],
    ['has expired', 'expired', /ERR_PATH_SECURITY .*has expired/],
    ['is not valid yet', 'early', /ERR_PATH_SECURITY .*not valid yet/],
    ['it has signed itself', 'selfSigned', /ERR_PATH_SECURITY .*not of the authority/],
    ['is of another authority', 'foreign', /ERR_PATH_SECURITY .*not of the authority/],
    ['is for clients', 'client', /ERR_PATH_SECURITY .*PURPOSE/],
  ])('%s', async (_what, server, told) => {
    await listen(authority.directory({ server, client: 'client' }));
    expect(await dial(authority.directory({ server: 'server', client: 'client' }))).toMatch(told);
    await expectRefused(/^ERR_PATH_(SECURITY|LOST) /);
  });
});

describe('A server does not trust a client whose certificate', () => {
  test.each([
    ['has expired', 'expired', /ERR_PATH_SECURITY .*has expired/],
    ['is not valid yet', 'early', /ERR_PATH_SECURITY .*not valid yet/],
    ['it has signed itself', 'selfSigned', /ERR_PATH_SECURITY .*not of the authority/],
    ['is of another authority', 'foreign', /ERR_PATH_SECURITY .*not of the authority/],
    ['is for servers', 'server', /ERR_PATH_SECURITY .*PURPOSE/],
  ])('%s', async (_what, client, told) => {
    await listen(authority.directory({ server: 'server', client: 'client' }));
    const answer = await dial(authority.directory({ server: 'server', client }));
    expect(answer).toMatch(/^ERR_PATH_(SECURITY|LOST) /);
    await expectRefused(told);
  });

  test.each([
    ['is missing', { minVersion: 'TLSv1.3' }, /ERR_PATH_SECURITY/],
    ['is missing, in TLS 1.2', { maxVersion: 'TLSv1.2' }, /ERR_PATH_SECURITY .*TLS 1.3/],
    [
      'is missing, and who wants another suite',
      { ciphers: 'TLS_AES_256_GCM_SHA384', minVersion: 'TLSv1.3' },
      /ERR_PATH_SECURITY/,
    ],
  ] as const)('%s', async (_what, options, told) => {
    await listen(authority.directory({ server: 'server', client: 'client' }));
    const { port } = listener;
    const socket = tls.connect({ host: HOST, port, rejectUnauthorized: false, ...options });
    let receivedBytes = 0;
    socket.on('error', () => {});
    socket.on('data', (bytes) => {
      receivedBytes += bytes.length;
    });
    await new Promise<void>((resolve) => socket.once('close', () => resolve()));
    expect(receivedBytes).toBe(0);
    await expectRefused(told);
  });
});
