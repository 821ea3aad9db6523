import { appendFileSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  DestinationHandover,
  decodeHandover,
  encodeHandover,
  FileJournal,
  type GuestHooks,
  type HandoverMessage,
  type Journal,
  type JournalEntry,
  recover,
  SourceHandover,
} from '../../src/index.ts';

/*
 * One host of a hand-over, as a process that kills itself where it is told to:
 *
 *   node handover-host.js SIDE FOLDER [POINT]
 *
 * A point is the moment before or after a write, a message or a hook; they are counted from 1. What
 * happens to the guest is a line in FOLDER/log, "SIDE running" for one; what the process has done
 * so far is on its stdout. It runs until it is stopped. FORGETFUL=1: its journal keeps nothing.
 */

const MIGRATION = 'ab'.repeat(16);
/** Stands for all of the guest, which is paused. */
const MEMORY = 200;

const [, , side, folder, killAt] = process.argv as [string, string, string, string, string?];
let points = 0;

function point(): void {
  points++;
  process.stdout.write(`point ${points}\n`);
  if (points === Number(killAt)) process.kill(process.pid, 'SIGKILL');
}

function note(state: 'running' | 'paused' | 'none'): void {
  appendFileSync(join(folder, 'log'), `${side} ${state}\n`);
}

class KillingJournal implements Journal {
  readonly #file = new FileJournal(join(folder, `${side}.journal`));

  read(): Promise<JournalEntry | undefined> {
    return this.#file.read();
  }

  async write(entry: JournalEntry): Promise<void> {
    point();
    if (process.env['FORGETFUL'] !== '1') await this.#file.write(entry);
    point();
  }
}

function hook(state: 'running' | 'none'): () => Promise<void> {
  return async () => {
    point();
    note(state);
    point();
  };
}

const hooks: GuestHooks = {
  resume: hook('running'),
  start: hook('running'),
  discard: hook('none'),
};
const options = { journal: new KillingJournal(), hooks };

/** Payloads with their lengths in front. */
function put(socket: Socket, payload: Uint8Array): void {
  const length = new Uint8Array(4);
  new DataView(length.buffer).setUint32(0, payload.length);
  socket.write(Buffer.concat([length, payload]));
}

function onPayload(socket: Socket, take: (payload: Uint8Array) => void): void {
  let held: Buffer = Buffer.alloc(0);
  socket.on('data', (chunk: Buffer) => {
    held = Buffer.concat([held, chunk]);
    while (held.length >= 4 && held.length >= 4 + held.readUInt32BE(0)) {
      const end = 4 + held.readUInt32BE(0);
      const payload = held.subarray(4, end);
      held = held.subarray(end);
      take(payload);
    }
  });
}

function senderTo(socket: Socket): (message: HandoverMessage) => void {
  return (message) => {
    point();
    const { buffer, start, end } = encodeHandover(message, 0);
    put(socket, buffer.subarray(start, end));
    point();
  };
}

async function dial(): Promise<Socket> {
  for (;;) {
    const socket = connect(join(folder, 'socket'));
    socket.on('error', () => {});
    const isOpen = await new Promise<boolean>((resolve) => {
      socket.once('connect', () => resolve(true)).once('close', () => resolve(false));
    });
    if (isOpen) return socket;
    await sleep(10);
  }
}

async function runSource(): Promise<void> {
  const recovered = (await recover(options)) as SourceHandover | undefined;
  process.stdout.write(`decided ${Math.round(performance.now())} ms\n`);
  const handover = recovered ?? new SourceHandover({ ...options, migration: MIGRATION });
  let socket: Socket | undefined;
  const reach = async (): Promise<void> => {
    socket = await dial();
    onPayload(socket, (payload) => handover.receive(decodeHandover(payload)));
    socket.once('close', () => {
      handover.connectionLost();
      reach();
    });
    handover.connectionBack(senderTo(socket));
  };
  await reach();
  const handOver = async (): Promise<void> => {
    note('running');
    await handover.begin();
    note('paused');
    put(socket!, Uint8Array.of(MEMORY));
    await handover.commit();
  };
  // What is thrown is in the result as well.
  if (recovered === undefined) await handOver().catch(() => {});
  const { guest } = await handover.result;
  process.stdout.write(`result ${guest}\n`);
}

async function runDestination(): Promise<void> {
  let handover = (await recover(options)) as DestinationHandover | undefined;
  process.stdout.write(`decided ${Math.round(performance.now())} ms\n`);
  const tell = (): unknown =>
    handover?.result.then(({ guest }) => process.stdout.write(`result ${guest}\n`));
  tell();
  const server = createServer((socket) => {
    socket.on('error', () => {});
    onPayload(socket, (payload) => {
      if (payload[0] === MEMORY) {
        handover?.ready().catch(() => {});
        return;
      }
      const message = decodeHandover(payload);
      if (message.word === 'reserve' && handover === undefined) {
        handover = new DestinationHandover({
          ...options,
          migration: message.migration,
          send: senderTo(socket),
        });
        tell();
        handover.reserve().catch(() => {});
      } else handover?.receive(message);
    });
    socket.once('close', () => handover?.connectionLost());
    handover?.connectionBack(senderTo(socket));
  });
  server.listen(join(folder, 'socket'));
}

await (side === 'source' ? runSource() : runDestination());
