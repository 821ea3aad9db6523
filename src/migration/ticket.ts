import { existsSync } from 'node:fs';
import { createDurably, readBounded } from '../durable-file.ts';
import { messageOf, PagelaneError } from '../errors.ts';
import { decodeStage, encodeStage, type StageMessage } from './stage-message.ts';

/* Chosen by us */
const BYTES_MAX = 128 * 1024;

/** Where a parked guest is, and the key that opens it: whoever has it has the guest. */
export type Ticket = StageMessage;

/**
 * Makes sure that there is no file where a ticket is to be kept: it may be all that is left of
 * another guest.
 *
 * @throws {PagelaneError} ERR_TICKET If there is one.
 */
export function checkNoTicket(path: string): void {
  if (!existsSync(path)) return;
  const text =
    `Cannot keep ticket "${path}": the file is there already; it may open another guest: ` +
    'gather that first, or move the file away';
  throw new PagelaneError('ERR_TICKET', text);
}

/**
 * Keeps a ticket in a new file that only this user can read. It is safe from a crash on return.
 *
 * @throws {PagelaneError} ERR_TICKET If that cannot be done, or the file is there already.
 */
export async function writeTicket(path: string, ticket: Ticket): Promise<void> {
  const { buffer, start } = encodeStage(ticket, 0);
  try {
    await createDurably(path, `${Buffer.from(buffer.subarray(start + 1)).toString('utf8')}\n`);
  } catch (cause) {
    const text = `Cannot write ticket "${path}": ${messageOf(cause)}`;
    throw new PagelaneError('ERR_TICKET', text, { cause });
  }
}

/** @throws {PagelaneError} ERR_TICKET If there is none, or it is damaged. */
export async function readTicket(path: string): Promise<Ticket> {
  try {
    const text = Buffer.from((await readBounded(path, BYTES_MAX)).trimEnd());
    const ticket = decodeStage(Buffer.concat([Uint8Array.of(0), text]));
    if (ticket.intermediaries.length === 0) throw new Error('it names no intermediary');
    return ticket;
  } catch (cause) {
    const text = `Cannot use ticket "${path}": ${messageOf(cause)}`;
    throw new PagelaneError('ERR_TICKET', text, { cause });
  }
}
