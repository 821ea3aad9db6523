/*
 * A stand-in for the source QEMU: writes a pre-copy stream of raw pages to a unix socket as fast as
 * it is taken.
 *
 *   node page-source.js SOCKET MEBIBYTES
 */
import { randomFillSync } from 'node:crypto';
import { connect } from 'node:net';
import { PAGE_BYTES, StreamBuilder } from '../../test/support/qemu-stream.ts';

const SECTION_PAGES = 4096;

const [socketPath, mebibytes] = process.argv.slice(2);
const sections = Math.ceil((Number(mebibytes) * 1024 * 1024) / (SECTION_PAGES * PAGE_BYTES));

const head = new StreamBuilder({ blocks: [{ name: 'pc.ram', pages: SECTION_PAGES }] });
head.header().ramStart();
const section = makeSection();
const tail = new StreamBuilder({ blocks: [{ name: 'pc.ram', pages: SECTION_PAGES }] });
tail.partBegin(3).partEnd().tail(new Uint8Array(64));

const socket = connect({ path: socketPath! });
socket.write(head.bytes());
let written = 0;
writeOn();

function writeOn(): void {
  while (written < sections) {
    written++;
    if (!socket.write(section)) {
      socket.once('drain', writeOn);
      return;
    }
  }
  socket.end(tail.bytes());
}

/** One PART section with every page of the block, in one buffer. */
function makeSection(): Uint8Array {
  const recordBytes = 8 + PAGE_BYTES;
  const begin = new StreamBuilder({ blocks: [] }).partBegin().bytes();
  const end = new StreamBuilder({ blocks: [] }).partEnd().bytes();
  const nameBytes = 1 + 'pc.ram'.length;
  const bytes = Buffer.alloc(begin.length + nameBytes + SECTION_PAGES * recordBytes + end.length);
  randomFillSync(bytes);
  bytes.set(begin, 0);
  let at = begin.length;
  for (let page = 0; page < SECTION_PAGES; page++) {
    bytes.writeBigUInt64BE(BigInt(page * PAGE_BYTES) | (page === 0 ? 0x08n : 0x28n), at);
    at += 8;
    if (page === 0) at += bytes.write('\x06pc.ram', at, 'latin1');
    at += PAGE_BYTES;
  }
  bytes.set(end, at);
  return bytes;
}
