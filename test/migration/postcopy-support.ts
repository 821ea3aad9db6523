import { encodePageRequest } from '../../src/stream/page-request.ts';
import { type FakeSource, shut } from '../support/fake-qemu.ts';
import { waitUntil } from '../support/lab/processes.ts';
import { PAGE_BYTES, StreamBuilder } from '../support/qemu-stream.ts';
import { BOUND_MS } from './support.ts';

/* What both QEMUs of a post-copy say, in bytes that a test can look for. */

export const BLOCKS = [
  { name: 'pc.ram', pages: 600 },
  { name: 'vga.vram', pages: 4 },
];

/** The destination QEMU has loaded the package; it has everything. */
export const LOADED: Buffer = Buffer.of(0, 2, 0, 4, 0, 0, 0, 3);
export const DONE: Buffer = Buffer.from(shut(0));

export const PACKAGE: Buffer = Buffer.alloc(300, 9);
export const EOS: Buffer = Buffer.of(0, 0, 0, 0, 0, 0, 0, 0x10);

/** RAM's END section without a page, and EOF. */
export const END: Buffer = Buffer.of(3, 0, 0, 0, 2, ...EOS, 0x7e, 0, 0, 0, 2, 0);

export function contentOf(page: number): Buffer {
  return Buffer.from(Uint8Array.from({ length: PAGE_BYTES }, (_, at) => page + (at % 13)));
}

export function request(page: number, block = 'pc.ram'): Buffer {
  const range = { offsetBytes: page * PAGE_BYTES, lengthBytes: PAGE_BYTES };
  return Buffer.from(encodePageRequest({ block, ...range }));
}

/** A stream that has only begun. */
export function beginStream(): StreamBuilder {
  return new StreamBuilder({ blocks: BLOCKS }).header().command(1);
}

/** What QEMU writes when it switches over. */
export function addSwitchOver(builder: StreamBuilder): StreamBuilder {
  builder.command(6, [0, 6, ...Buffer.from('pc.ram'), ...new Uint8Array(16)]);
  return builder.command(7, [0, 0, PACKAGE.length >> 8, PACKAGE.length & 255]).raw(PACKAGE);
}

/** Writes to a QEMU's channel what was added to a stream since the last time. */
export function writerOf(
  builder: StreamBuilder,
  qemu: FakeSource,
): { send(): void; readonly sentBytes: number } {
  let sentBytes = 0;
  return {
    send: () => {
      const bytes = builder.bytes();
      qemu.write(bytes.slice(sentBytes));
      sentBytes = bytes.length;
    },
    get sentBytes() {
      return sentBytes;
    },
  };
}

export async function until(what: string, probe: () => boolean): Promise<void> {
  await waitUntil(what, probe, { timeoutMs: BOUND_MS });
}
