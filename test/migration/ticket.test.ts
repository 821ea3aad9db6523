import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { checkNoTicket, readTicket, writeTicket } from '../../src/migration/ticket.ts';

const TICKET = {
  scope: { vm: '01234567', attempt: '0123456789abcdef'.repeat(2) },
  key: Buffer.alloc(32, 7),
  intermediaries: ['redis://one', 'redis+cluster://two?slot=5'],
};

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'pagelane-ticket-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

test('a ticket is kept for this user alone, and read again', async () => {
  const path = join(folder, 'ticket');
  await writeTicket(path, TICKET);
  expect(await readTicket(path)).toEqual(TICKET);
  expect(statSync(path).mode & 0o777).toBe(0o600);
});

test.each([
  ['cut', (text: string) => text.slice(0, 40)],
  ['of another version', (text: string) => text.replace('"v":1', '"v":2')],
  ['with another key', (text: string) => text.replace(/"key":"[^"]*"/, '"key":"AAAA"')],
  ['without an intermediary', (text: string) => text.replace(/\["redis.*\]/, '[]')],
  ['too long', (text: string) => text.padEnd(200_000)],
])('a ticket that is %s is refused', async (_, change) => {
  const path = join(folder, 'ticket');
  await writeTicket(path, TICKET);
  writeFileSync(path, change(readFileSync(path, 'utf8')));
  await expect(readTicket(path)).rejects.toMatchObject({ code: 'ERR_TICKET' });
});

test('a ticket that cannot be kept, or is not there, is an error', async () => {
  const path = join(folder, 'none', 'ticket');
  await expect(writeTicket(path, TICKET)).rejects.toMatchObject({ code: 'ERR_TICKET' });
  await expect(readTicket(path)).rejects.toMatchObject({ code: 'ERR_TICKET' });
});

test('a ticket that is there already is never replaced: it may open another guest', async () => {
  const path = join(folder, 'ticket');
  expect(() => checkNoTicket(path)).not.toThrow();
  await writeTicket(path, TICKET);
  expect(() => checkNoTicket(path)).toThrow(/it may open another guest/);
  const other = { ...TICKET, key: Buffer.alloc(32, 8) };
  await expect(writeTicket(path, other)).rejects.toMatchObject({ code: 'ERR_TICKET' });
  expect(await readTicket(path)).toEqual(TICKET);
});
