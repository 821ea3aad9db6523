import { PAGE_BYTES, StreamBuilder } from './qemu-stream.ts';

const PAGE_COUNT = 64;

/** How a small stream differs from a usual one. */
export interface SmallStreamOptions {
  /** The source opened the return path. @default true */
  readonly hasReturnPath?: boolean;
  /** Further bytes of device state. */
  readonly deviceBytes?: number;
}

function begin({ hasReturnPath = true }: SmallStreamOptions): StreamBuilder {
  const builder = new StreamBuilder({ blocks: [{ name: 'pc.ram', pages: PAGE_COUNT }] }).header();
  if (hasReturnPath) builder.command(1).command(2, [0, 0, 0, 1]);
  return builder.ramStart();
}

function pages(builder: StreamBuilder, value: number): StreamBuilder {
  for (let page = 0; page < PAGE_COUNT; page++) {
    const bytes = new Uint8Array(PAGE_BYTES).fill(value + page);
    builder.page(0, page, { kind: 'page', bytes });
  }
  return builder.partEnd();
}

/** A whole pre-copy of a tiny guest: two rounds, then device state. */
export function smallStream(options: SmallStreamOptions = {}): Uint8Array {
  const { deviceBytes = 500 } = options;
  const builder = pages(pages(begin(options).partBegin(), 1).partBegin(3), 100);
  return builder.tail(new Uint8Array(deviceBytes).fill(9)).bytes();
}

/** The same as far as the end of its first round: QEMU would go on. */
export function unfinishedStream(options: SmallStreamOptions = {}): Uint8Array {
  return pages(begin(options).partBegin(), 1).bytes();
}
