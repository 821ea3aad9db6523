/*
 * The destination of any number of sessions, which throws away what it is sent. Ends with the first
 * migration that is done, and writes its result.
 *
 *   node hostile-receiver.js HOST PORT KEY_FILE
 */
import {
  listen,
  type MigrationSession,
  messageOf,
  QemuChannel,
  readKeyFile,
} from '../../src/index.ts';

/* Chosen by us */
const TIMEOUT_MS = 60_000;

const [host = '', port = '', keyFile = ''] = process.argv.slice(2);
const security = { kind: 'key', key: readKeyFile(keyFile) } as const;
const listener = await listen({ host, port: Number(port), security });
console.error(`listening on ${host}:${listener.port}`);
for (;;) {
  const session = await listener.accept();
  serve(session).catch((error) => console.error(`a session failed: ${messageOf(error)}`));
}

async function serve(session: MigrationSession): Promise<void> {
  const migration = await session.acceptMigration();
  const { signal } = new AbortController();
  const open = () => QemuChannel.connect({ kind: 'null' }, { timeoutMs: TIMEOUT_MS, signal });
  const result = await migration.relayWhenNeeded(open, { signal });
  await session.close();
  process.stdout.write(`${JSON.stringify(result)}\n`, () => process.exit(0));
}
