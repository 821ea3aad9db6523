/*
 * pagelane inside a hypervisor's own process, in 30 lines: node embed.js receive | send
 *
 * QEMU, source:       migrate unix:/tmp/example-out
 * QEMU, destination:  -incoming unix:/tmp/example-in
 */
import { connect as connectUnix, createServer } from 'node:net';
import { connect, createKeyFile, listen, readKeyFile } from '../src/index.ts';

const KEY = '/tmp/example-key';

async function receive(): Promise<void> {
  createKeyFile(KEY);
  const security = { kind: 'key', key: readKeyFile(KEY) } as const;
  await using listener = await listen({ host: '127.0.0.1', port: 7700, security });
  await using session = await listener.accept();
  const migration = await session.acceptMigration();
  const qemu = connectUnix('/tmp/example-in');
  migration.pipe(qemu).pipe(migration);
  console.log((await migration.result).guest);
}

async function send(): Promise<void> {
  const security = { kind: 'key', key: readKeyFile(KEY) } as const;
  const paths = [
    { host: '127.0.0.1', port: 7700 },
    { host: '127.0.0.1', port: 7700 },
  ];
  await using session = await connect({ paths, security });
  const server = createServer((qemu) => {
    const migration = session.openMigration({ name: 'example' });
    qemu.pipe(migration).pipe(qemu);
    migration.result.then((result) => console.log(result.guest));
  }).listen('/tmp/example-out');
  await session.ended;
  server.close();
}

await (process.argv[2] === 'receive' ? receive() : send());
