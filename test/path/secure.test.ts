import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { codeOf } from '../../src/errors.ts';
import {
  checkSecurity,
  clientTls,
  exporterOf,
  lostError,
  securityError,
  serverTls,
} from '../../src/path/secure.ts';
import { type Certificates, makeCertificates } from '../support/certificates.ts';

let certificates: Certificates;

beforeAll(() => {
  certificates = makeCertificates();
});

afterAll(() => certificates.remove());

const error = (code: string): Error => Object.assign(new Error(`text of ${code}`), { code });

describe('checkSecurity()', () => {
  test.each([0, 16, 31, 33])('refuses a key of %i bytes', (bytes) => {
    expect(() => checkSecurity({ kind: 'key', key: new Uint8Array(bytes) })).toThrow(RangeError);
  });

  test('accepts a key of 32 bytes and what has no key', () => {
    checkSecurity({ kind: 'key', key: new Uint8Array(32) });
    checkSecurity({ kind: 'none' });
  });
});

describe('clientTls() and serverTls()', () => {
  test('are absent without TLS', async () => {
    expect(await clientTls({ kind: 'none' })).toBeUndefined();
    expect(await serverTls({ kind: 'none' })).toBeUndefined();
    expect(exporterOf(undefined)).toEqual(new Uint8Array(32));
  });

  test('allow TLS 1.3 and nothing else, and no tickets', async () => {
    for (const security of [
      { kind: 'key', key: new Uint8Array(32) },
      { kind: 'certificates', directory: certificates.directory },
    ] as const) {
      const versions = { minVersion: 'TLSv1.3', maxVersion: 'TLSv1.3' };
      expect(await clientTls(security)).toMatchObject(versions);
      expect(await serverTls(security)).toMatchObject({ ...versions, secureOptions: 1 << 14 });
    }
  });

  test('trust no authority at all with a key', async () => {
    expect((await clientTls({ kind: 'key', key: new Uint8Array(32) }))?.ca).toEqual([]);
  });

  test('ask the client for a certificate too', async () => {
    const { directory } = certificates;
    expect(await serverTls({ kind: 'certificates', directory })).toMatchObject({
      requestCert: true,
      rejectUnauthorized: true,
    });
  });

  test('name a file that is missing', async () => {
    const security = { kind: 'certificates', directory: '/nonexistent' } as const;
    await expect(clientTls(security)).rejects.toMatchObject({ code: 'ERR_PATH_SECURITY' });
    await expect(serverTls(security)).rejects.toThrow(/nonexistent.*-(cert|key)\.pem: ENOENT/);
  });
});

describe('securityError()', () => {
  test.each([
    ['ERR_SSL_WRONG_VERSION_NUMBER', 'does not speak TLS'],
    ['ERR_SSL_BINDER_DOES_NOT_VERIFY', 'the keys differ'],
    ['ERR_SSL_SSLV3_ALERT_ILLEGAL_PARAMETER', 'the keys differ'],
    ['ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION', 'TLS 1.3'],
    ['ERR_SSL_SSLV3_ALERT_HANDSHAKE_FAILURE', 'key file or certificates'],
    ['ERR_TLS_CERT_ALTNAME_INVALID', 'another host'],
    ['CERT_HAS_EXPIRED', 'expired'],
    ['UNABLE_TO_VERIFY_LEAF_SIGNATURE', 'not of the authority'],
    ['ERR_SSL_SOMETHING_NEW', 'ERR_SSL_SOMETHING_NEW: text of'],
  ])('%s: %s', (code, advice) => {
    const found = securityError(error(code), 'host:1');
    expect(found?.code).toBe('ERR_PATH_SECURITY');
    expect(found?.message).toContain('Cannot open path with host:1');
    expect(found?.message).toContain(advice);
  });

  test.each(['ECONNRESET', 'EPIPE', 'ETIMEDOUT'])('%s is the network’s', (code) => {
    expect(securityError(error(code), 'host:1')).toBeUndefined();
  });
});

test('lostError() names both ends and the cause', () => {
  const lost = lostError({ local: 'a:1', remote: 'b:2' }, error('ECONNRESET'));
  expect(lost.message).toBe('Path a:1 to b:2 was lost: the peer reset it');
  expect(codeOf(lost)).toBe('ERR_PATH_LOST');
  expect(lostError({ local: 'a:1', remote: 'b:2' }).message).toContain('the peer closed it');
});
