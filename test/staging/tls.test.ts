import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { parseIntermediary } from '../../src/staging/address.ts';
import { Intermediary } from '../../src/staging/intermediary.ts';
import { makeCertificates } from '../support/certificates.ts';
import { freePort, RedisServer } from '../support/redis.ts';
import { StagedGuest, scatterGuest, startGather } from './staged-guest.ts';

const certificates = makeCertificates();
afterAll(() => certificates.remove());

function tlsWords(port: number): string[] {
  const { directory } = certificates;
  const file = (name: string): string => join(directory, name);
  return [
    ...['--tls-port', `${port}`, '--bind', '127.0.0.1'],
    ...['--tls-cert-file', file('server-cert.pem'), '--tls-key-file', file('server-key.pem')],
    ...['--tls-ca-cert-file', file('ca-cert.pem')],
  ];
}

function addressOf(port: number, directory: string): string {
  const file = (name: string): string => encodeURIComponent(join(directory, name));
  const own = `cert=${file('client-cert.pem')}&key=${file('client-key.pem')}`;
  return `rediss://127.0.0.1:${port}?ca=${file('ca-cert.pem')}&${own}`;
}

test('pages go over TLS, with certificates at both ends', async () => {
  const port = await freePort();
  await using _ = await RedisServer.start(tlsWords(port));
  using guest = new StagedGuest(2000, 8);
  using there = new StagedGuest(2000);
  const address = parseIntermediary(addressOf(port, certificates.directory));
  await using intermediary = await Intermediary.open(address);
  const scattered = await scatterGuest(guest, [intermediary]);
  await using gather = await startGather(there, scattered, [intermediary]);
  expect(await gather.done()).toMatchObject({ pages: 2000, badExtents: 0 });
  expect(Buffer.compare(there.bytes, guest.bytes)).toBe(0);
});

test('another authority, and no certificate, are refused at either end', async () => {
  const port = await freePort();
  await using _ = await RedisServer.start(tlsWords(port));
  const foreign = parseIntermediary(addressOf(port, certificates.foreign));
  await expect(Intermediary.open(foreign)).rejects.toMatchObject({ code: 'ERR_STAGING_CONNECT' });
  const {
    text: __,
    certificateFile: ___,
    keyFile: ____,
    ...none
  } = parseIntermediary(addressOf(port, certificates.directory));
  await expect(Intermediary.open({ ...none, text: 'bare' })).rejects.toMatchObject({
    code: 'ERR_STAGING_CONNECT',
  });
});
