/*
 * pagelane inside a hypervisor's own process, in 30 lines: node embed.js receive | send [FOLDER]
 *
 * QEMU, source:       migrate unix:FOLDER/example-out
 * QEMU, destination:  -incoming unix:FOLDER/example-in
 */
import { existsSync } from 'node:fs';
import { connect as connectUnix, createServer } from 'node:net';
import { pipeline } from 'node:stream/promises';
import { connect, createKeyFile, listen, readKeyFile } from '../src/index.ts';

const [, , side, folder = '/tmp'] = process.argv;
const KEY = `${folder}/example-key`;
const allowHalfOpen = true; // QEMU closes its end first, and something may still be under way.

async function receive(): Promise<void> {
  if (!existsSync(KEY)) createKeyFile(KEY);
  const security = { kind: 'key', key: readKeyFile(KEY) } as const;
  await using listener = await listen({ host: '127.0.0.1', port: 7700, security });
  await using session = await listener.accept();
  const migration = await session.acceptMigration();
  const qemu = connectUnix({ path: `${folder}/example-in`, allowHalfOpen });
  // A migration that fails rejects here and closes QEMU's socket; the result says why.
  await pipeline(migration, qemu, migration).catch(() => {});
  console.log((await migration.result).guest);
}

async function send(): Promise<void> {
  const security = { kind: 'key', key: readKeyFile(KEY) } as const;
  const path = { host: '127.0.0.1', port: 7700 };
  await using session = await connect({ paths: [path, path], security });
  const server = createServer({ allowHalfOpen }, async (qemu) => {
    const migration = session.openMigration({ name: 'example' });
    await pipeline(qemu, migration, qemu).catch(() => {});
    console.log((await migration.result).guest);
  }).listen(`${folder}/example-out`);
  await session.ended;
  server.close();
}

await (side === 'receive' ? receive() : send());
