/*
 * Peers that mean no good:
 *
 *   node hostile-attacker.js keyless HOST PORT COUNT       connections that come to nothing
 *   node hostile-attacker.js keyed HOST PORT KEY_FILE      sessions that take what they can
 *
 * Says `ready` when it has begun, and what it has done when it is told to end.
 */
import net from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { systemClock } from '../../src/clock.ts';
import { encodeHeader, FrameType } from '../../src/frame/header.ts';
import { HEADER_BYTES, PATHS_MAX, PAYLOAD_BYTES_MAX } from '../../src/frame/limits.ts';
import { readKeyFile } from '../../src/index.ts';
import { dial } from '../../src/path/dial.ts';
import type { PathLink } from '../../src/path/link.ts';
import { runClientHandshake } from '../../src/session/handshake.ts';
import { WINDOW_BYTES } from '../../src/session/limits.ts';
import { KiB, MiB } from '../../src/units.ts';

/* Chosen by us */
const WAVE_MS = 20;
const WAVE_CONNECTIONS = 40; // 2,000 a second
const TRICKLE_MS = 1000;
const TIMEOUT_MS = 30_000;

/** What a connection that comes to nothing sends: nothing, a byte a second, half a ClientHello. */
const KINDS = ['silent', 'silent', 'slow', 'half'] as const;
const HALF_CLIENT_HELLO = Uint8Array.of(0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3);

const [mode, host = '', port = '', argument = ''] = process.argv.slice(2);
const counts = { opened: 0, dropped: 0, sessions: 0 };
process.on('SIGTERM', () => {
  console.log(JSON.stringify(counts));
  process.exit(0);
});
if (mode === 'keyed') await openSessions();
else floodConnections(Number(argument));
console.log('ready');

function floodConnections(count: number): void {
  const slow = new Set<net.Socket>();
  const waves = setInterval(() => {
    for (let left = WAVE_CONNECTIONS; left > 0; left--) openConnection(slow);
    if (counts.opened >= count) clearInterval(waves);
  }, WAVE_MS);
  setInterval(() => {
    for (const socket of slow) socket.write(Uint8Array.of(0x16));
  }, TRICKLE_MS);
}

function openConnection(slow: Set<net.Socket>): void {
  const kind = KINDS[counts.opened++ % KINDS.length];
  const socket = net.connect({ host, port: Number(port) });
  if (kind === 'slow') slow.add(socket);
  if (kind === 'half') socket.write(HALF_CLIENT_HELLO);
  socket.on('error', () => {});
  socket.on('close', () => {
    counts.dropped++;
    slow.delete(socket);
  });
  socket.resume();
}

/** A session whose first frame never comes, and one with the longest frame begun on each path. */
async function openSessions(): Promise<void> {
  const [flooded] = await openSession(1);
  for (let sequence = 1; sequence * MiB <= WINDOW_BYTES; sequence++) {
    flooded!.send(Buffer.concat([dataHeader(1 * MiB, sequence), Buffer.alloc(1 * MiB)]));
    // At a rate that leaves the wire to others.
    await sleep(50);
  }
  for (const [index, link] of (await openSession(PATHS_MAX)).entries()) {
    link.send(Buffer.concat([dataHeader(PAYLOAD_BYTES_MAX, index), Buffer.alloc(64 * KiB)]));
    setInterval(() => link.send(new Uint8Array(1)), TRICKLE_MS);
  }
}

/** Opens a session of so many paths, and takes nothing that arrives on them. */
async function openSession(paths: number): Promise<PathLink[]> {
  const security = { kind: 'key', key: readKeyFile(argument) } as const;
  const id = crypto.getRandomValues(new Uint8Array(16));
  const links: PathLink[] = [];
  let secret: Uint8Array | undefined;
  for (let count = 0; count < paths; count++) {
    const options = { security, clock: systemClock, timeoutMs: TIMEOUT_MS };
    const { link, exporter } = await dial({ host, port: Number(port) }, options);
    const parts = { link, exporter, id, windowBytes: WINDOW_BYTES, isSecure: true };
    const known = secret === undefined ? {} : { secret };
    await runClientHandshake({ ...parts, ...known, ...options }, (welcomed) => {
      secret = welcomed.secret;
      links.push(link);
    });
    link.stage = 'session';
    setInterval(() => link.send(pingFrame()), TRICKLE_MS / 4);
  }
  counts.sessions++;
  return links;
}

function pingFrame(): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES);
  const none = { flags: 0, lane: 0, length: 0, sequence: 0, epoch: 0 };
  encodeHeader(bytes, 0, { type: FrameType.Ping, ...none });
  return bytes;
}

function dataHeader(length: number, sequence: number): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES);
  const place = { flags: 0, lane: 0, length, sequence, epoch: sequence };
  encodeHeader(bytes, 0, { type: FrameType.Data, ...place });
  return bytes;
}
