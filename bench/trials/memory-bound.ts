import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { startProcess, waitUntil } from '../../test/support/lab/processes.ts';
import { PAGELANE } from '../../test/support/pagelane.ts';
import type { Trial } from '../harness.ts';
import { residentMib } from './loopback-pages.ts';

/* Chosen by us */
const TIMEOUT_MS = 30_000;
const BYTES_PER_SECOND = 1e6;
const SENDER_MIB_MAX = 192;
const RECEIVER_MIB_MAX = 192;

/**
 * Memory of both ends while the destination reads 1 MB/s and the source writes as fast as it can.
 */
export const memoryBound: Trial = {
  name: 'memory-bound',
  question: 'How much memory do both ends take while the destination QEMU reads 1 MB/s?',
  async run({ isSmoke }) {
    const folder = mkdtempSync(join(tmpdir(), 'pagelane-bench-'));
    try {
      const peaks = await starve(folder, isSmoke ? 2 : 20);
      const line = `  highest RSS: send ${peaks.sender.toFixed(0)} MiB of ${SENDER_MIB_MAX}, `;
      if (peaks.sender > SENDER_MIB_MAX || peaks.receiver > RECEIVER_MIB_MAX) {
        throw new Error(`Memory is above its bound: ${JSON.stringify(peaks)}`);
      }
      return [`${line}receive ${peaks.receiver.toFixed(0)} MiB of ${RECEIVER_MIB_MAX}`];
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  },
};

async function starve(folder: string, seconds: number) {
  const incoming = join(folder, 'in');
  const server = createServer(readSlowly).listen(incoming);
  await using receiver = startProcess([
    ...[...PAGELANE, 'receive', '--listen', '127.0.0.1:0', '--insecure'],
    ...['--qemu', `unix:${incoming}`],
  ]);
  const port = await waitUntil(
    'pagelane receive to listen',
    () => /listening on .*:(\d+)/.exec(receiver.stderr())?.[1],
    { timeoutMs: TIMEOUT_MS },
  );
  const socket = join(folder, 'out');
  await using sender = startProcess([
    ...[...PAGELANE, 'send', '--to', `127.0.0.1:${port}`, '--insecure'],
    ...['--qemu', `unix:${socket}`],
  ]);
  await waitUntil('pagelane send to listen', () => existsSync(socket), { timeoutMs: TIMEOUT_MS });
  await waitUntil('pagelane send to be ready', () => sender.stderr().includes('ready'), {
    timeoutMs: TIMEOUT_MS,
  });
  const script = fileURLToPath(new URL('./page-source.js', import.meta.url));
  await using source = startProcess([process.execPath, script, socket, '4096']);
  const peaks = { sender: 0, receiver: 0 };
  for (let tick = 0; tick < seconds * 4; tick++) {
    await sleep(250);
    peaks.sender = Math.max(peaks.sender, residentMib(sender.pid));
    peaks.receiver = Math.max(peaks.receiver, residentMib(receiver.pid));
    if (!source.isRunning()) throw new Error(`The source is done already: ${source.stderr()}`);
  }
  server.close();
  return peaks;
}

function readSlowly(socket: Socket): void {
  socket.pause();
  socket.on('error', () => {});
  const timer = setInterval(() => {
    socket.read(BYTES_PER_SECOND / 10);
  }, 100);
  socket.on('close', () => clearInterval(timer));
}
