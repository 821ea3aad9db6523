import { openSyntheticMemory, SyntheticGuest } from '../../src/cli/synthetic-guest.ts';
import {
  connect,
  digestMemory,
  type GuestMemory,
  type GuestResult,
  IncomingGuest,
  listen,
  type MigrationSession,
  writeProtectDirtyLog,
} from '../../src/index.ts';
import { formatSpread, spread, type Trial } from '../harness.ts';

/* Chosen by us */

const PAGE_BYTES = 4096;
const CHANGED_PERCENT = 5;

interface Moved {
  readonly result: GuestResult;
  /** Both ways, what was asked and answered among them. */
  readonly bytes: number;
}

/** A guest that comes back to a host that kept its memory, and one that was copied ahead. */
export const warmStart: Trial = {
  name: 'warm-start',
  question: 'What does a migration send if the destination holds the guest as it was?',
  async run({ isSmoke, pairs }) {
    const bytes = (isSmoke ? 64 : 1024) * 2 ** 20;
    const back: number[] = [];
    const ahead: number[] = [];
    for (let index = 0; index < (isSmoke ? 1 : pairs); index++) {
      const seed = index + 1;
      const guest = new SyntheticGuest({ bytes, zeroPercent: 50, randomPercent: 25, dirtyRate: 0 });
      const there = openSyntheticMemory(bytes);
      const copy = openSyntheticMemory(bytes);
      const cold = await move(guest.memory, there, false);
      change(there, seed);
      const returned = await move(there, guest.memory, true);
      back.push(returned.bytes / cold.bytes);
      await copyAhead(guest.memory, copy);
      change(guest.memory, seed + 1000);
      const warm = await move(guest.memory, copy, true);
      ahead.push(warm.bytes / cold.bytes);
      await guest.dispose();
      there.dispose();
      copy.dispose();
    }
    const what = `bytes ÷ a cold migration's, ${CHANGED_PERCENT} % of pages changed (target ≤ 0.15)`;
    return [
      `back to a host that kept its memory: ${what} ${formatSpread(spread(back), 3)}`,
      `after its memory was copied ahead: ${what} ${formatSpread(spread(ahead), 3)}`,
    ];
  },
};

/** Writes a word to so many pages anywhere, as a guest does. */
function change(memory: GuestMemory, seed: number): void {
  const view = memory.view(0);
  const pages = view.length / PAGE_BYTES;
  let random = seed;
  for (let count = 0; count < (pages * CHANGED_PERCENT) / 100; count++) {
    random = (Math.imul(random, 1664525) + 1013904223) >>> 0;
    view[Math.floor((random / 2 ** 32) * pages) * PAGE_BYTES + (count % PAGE_BYTES)]! += 1;
  }
}

async function move(
  source: GuestMemory,
  memory: GuestMemory,
  holdsEarlier: boolean,
): Promise<Moved> {
  const dirtyLog = writeProtectDirtyLog(source);
  const moved = await between(
    (session) =>
      session.migrateGuest({ source, dirtyLog, downtimeMs: 300, pause() {}, resume() {} }),
    (incoming) => incoming.receive({ memory, holdsEarlier, start() {} }),
  );
  if ((await digestMemory(source)) !== (await digestMemory(memory))) {
    throw new Error('Memory is not what was sent');
  }
  return moved;
}

function copyAhead(source: GuestMemory, memory: GuestMemory): Promise<Moved> {
  return between(
    (session) => session.warmGuest({ source }),
    (incoming) => incoming.keep({ memory }),
  );
}

async function between(
  send: (session: MigrationSession) => Promise<GuestResult>,
  take: (incoming: IncomingGuest) => Promise<GuestResult>,
): Promise<Moved> {
  const security = { kind: 'none' } as const;
  await using listener = await listen({ host: '127.0.0.1', port: 0, security });
  const path = { host: '127.0.0.1', port: listener.port };
  const accepting = listener.accept();
  await using session = await connect({ paths: [path, path], security });
  await using destination = await accepting;
  const taken = destination.acceptGuest().then((incoming) => {
    if (!(incoming instanceof IncomingGuest)) throw new Error('The source only asks');
    return take(incoming);
  });
  const result = await send(session);
  await taken;
  if (result.outcome !== 'completed') throw new Error(result.error?.message);
  const reports = session.pathReports();
  const bytes = reports.reduce((sum, path) => sum + path.sentBytes + path.receivedBytes, 0);
  return { result, bytes };
}
