import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Directories of certificates, and how to remove them. */
export interface Certificates {
  /** The right ones, for 127.0.0.1 and localhost. */
  readonly directory: string;
  /** All of another authority. */
  readonly foreign: string;
  /** Of the right authority, but the server's is of another host. */
  readonly otherHost: string;
  /** Of the right authority, but expired. */
  readonly expired: string;
  remove(): void;
}

/** Makes certificates with the `openssl` command, in a temporary directory. */
export function makeCertificates(): Certificates {
  const root = mkdtempSync(join(tmpdir(), 'pagelane-certificates-'));
  const authority = join(root, 'authority');
  const foreignAuthority = join(root, 'foreign-authority');
  makeAuthority(authority);
  makeAuthority(foreignAuthority);
  const here = 'IP:127.0.0.1,DNS:localhost';
  const make = (name: string, from: string, names: string, days: number): string => {
    const directory = join(root, name);
    mkdirSync(directory);
    copyFileSync(join(from, 'ca-cert.pem'), join(directory, 'ca-cert.pem'));
    for (const side of ['server', 'client']) sign(directory, from, { side, names, days });
    return directory;
  };
  return {
    directory: make('right', authority, here, 2),
    foreign: make('foreign', foreignAuthority, here, 2),
    otherHost: make('other-host', authority, 'DNS:elsewhere.example', 2),
    expired: make('expired', authority, here, -1),
    remove: () => rmSync(root, { recursive: true, force: true }),
  };
}

function makeAuthority(directory: string): void {
  mkdirSync(directory);
  const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
  const files = ['-keyout', 'ca-key.pem', '-out', 'ca-cert.pem'];
  openssl(directory, ['req', '-x509', ...curve, ...files, '-days', '2', '-subj', '/CN=authority']);
}

function sign(
  directory: string,
  authority: string,
  { side, names, days }: { side: string; names: string; days: number },
): void {
  const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
  const request = ['-keyout', `${side}-key.pem`, '-out', `${side}.csr`, '-subj', `/CN=${side}`];
  openssl(directory, ['req', ...curve, ...request]);
  writeFileSync(join(directory, 'extensions'), `subjectAltName=${names}\n`);
  openssl(directory, [
    ...['x509', '-req', '-in', `${side}.csr`, '-out', `${side}-cert.pem`],
    ...['-CA', join(authority, 'ca-cert.pem'), '-CAkey', join(authority, 'ca-key.pem')],
    ...['-CAcreateserial', '-days', String(days), '-extfile', 'extensions'],
  ]);
}

function openssl(directory: string, args: readonly string[]): void {
  execFileSync('openssl', args, { cwd: directory, stdio: 'pipe' });
}
