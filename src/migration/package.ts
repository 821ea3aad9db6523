import type { RamLayout } from '../page/block.ts';
import { viewOf } from '../stream/bytes.ts';
import { Command, SectionType } from '../stream/format.ts';
import { PING_LOADED } from './return-message.ts';

/* Fixed by QEMU */
const HEAD_BYTES = 5;
const DISCARD_VERSION = 0;

/** A command of a migration stream. */
export function command(number: number, payload: Uint8Array = new Uint8Array(0)): Uint8Array {
  const bytes = new Uint8Array(HEAD_BYTES + payload.length);
  const view = viewOf(bytes);
  view.setUint8(0, SectionType.Command);
  view.setUint16(1, number);
  view.setUint16(3, payload.length);
  bytes.set(payload, HEAD_BYTES);
  return bytes;
}

/**
 * Says of all memory that it comes later. A destination that is told to listen without any discard
 * before it falls back out of listening, and takes pages as those of a pre-copy (seen in 7.2 and
 * 10.0). Source: QEMU migration/postcopy-ram.c, postcopy_ram_prepare_discard.
 */
export function discardAll({ blocks }: RamLayout): Uint8Array {
  return Buffer.concat(
    blocks.map(({ name, usedBytes }) => {
      const text = Buffer.from(name, 'latin1');
      const head = [Uint8Array.of(DISCARD_VERSION, text.length), text, Uint8Array.of(0)];
      const payload = Buffer.concat([...head, be64(0), be64(usedBytes)]);
      return command(Command.PostcopyRamDiscard, payload);
    }),
  );
}

/**
 * What switches a destination over to post-copy: its device state between LISTEN and RUN, as one
 * package. Source: QEMU migration/migration.c, postcopy_start.
 *
 * @param deviceState FULL sections, as a pre-copy has them behind its RAM.
 */
export function postcopyPackage(deviceState: Uint8Array): Uint8Array {
  const blob = Buffer.concat([
    command(Command.PostcopyListen),
    deviceState,
    pingCommand(PING_LOADED),
    command(Command.PostcopyRun),
  ]);
  return Buffer.concat([command(Command.Packaged, be32(blob.length)), blob]);
}

/** Has QEMU answer with a PONG of the same value, when it has taken all before. */
export function pingCommand(value: number): Uint8Array {
  return command(Command.Ping, be32(value));
}

function be64(value: number): Uint8Array {
  const bytes = new Uint8Array(8);
  viewOf(bytes).setBigUint64(0, BigInt(value));
  return bytes;
}

function be32(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  viewOf(bytes).setUint32(0, value);
  return bytes;
}
