import { closeSync, openSync, readSync, writeSync } from 'node:fs';
import { PAGE_BYTES, StreamBuilder } from '../../test/support/qemu-stream.ts';
import type { PageSet } from './page-set.ts';

/* A pre-copy stream as QEMU writes it, every page once and in order. */

/* Chosen by us */
const SECTION_PAGES = 4096;
const BLOCK = 'pc.ram';

const HEADER_BYTES = 8;
const FLAG_PAGE = 0x08n;
const FLAG_CONTINUE = 0x20n;

/** Writes the stream that carries the pages of `set` to `file`. */
export function writePageStream(set: PageSet, file: string): void {
  const blocks = [{ name: BLOCK, pages: set.memoryPages }];
  const input = openSync(set.file, 'r');
  const output = openSync(file, 'w');
  const write = (bytes: Uint8Array): void => {
    for (let at = 0; at < bytes.length; ) at += writeSync(output, bytes, at);
  };
  write(new StreamBuilder({ blocks }).header().ramStart().bytes());
  const begin = new StreamBuilder({ blocks }).partBegin().bytes();
  const end = new StreamBuilder({ blocks }).partEnd().bytes();
  for (let first = 0; first < set.indexes.length; first += SECTION_PAGES) {
    const indexes = set.indexes.subarray(first, first + SECTION_PAGES);
    write(begin);
    write(records(input, indexes));
    write(end);
  }
  const last = new StreamBuilder({ blocks }).partBegin(3).partEnd().tail(new Uint8Array(64));
  write(last.bytes());
  closeSync(output);
  closeSync(input);
}

/** Records of the next pages of `input`; the first one names the block. */
function records(input: number, indexes: Uint32Array): Uint8Array {
  const nameBytes = 1 + BLOCK.length;
  const bytes = Buffer.alloc(nameBytes + indexes.length * (HEADER_BYTES + PAGE_BYTES));
  let at = 0;
  for (const [ordinal, index] of indexes.entries()) {
    const flags = ordinal === 0 ? FLAG_PAGE : FLAG_PAGE | FLAG_CONTINUE;
    at = bytes.writeBigUInt64BE(BigInt(index * PAGE_BYTES) | flags, at);
    if (ordinal === 0) {
      at = bytes.writeUInt8(BLOCK.length, at);
      at += bytes.write(BLOCK, at, 'latin1');
    }
    const read = readSync(input, bytes, at, PAGE_BYTES, null);
    if (read !== PAGE_BYTES) throw new Error(`A page of ${read} bytes`);
    at += PAGE_BYTES;
  }
  return bytes;
}
