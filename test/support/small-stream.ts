import { PAGE_BYTES, postcopyAdvice, StreamBuilder } from './qemu-stream.ts';

const PAGE_COUNT = 64;
/** What tells the pages of the last round from others. */
const LAST_ROUND = 100;

/** How a small stream differs from a usual one. */
export interface SmallStreamOptions {
  /** The source opened the return path. @default true */
  readonly hasReturnPath?: boolean;
  /** The source said that it may switch to post-copy. @default false */
  readonly mayPostcopy?: boolean;
  /** Further bytes of device state. */
  readonly deviceBytes?: number;
}

function begin({ hasReturnPath = true, mayPostcopy = false }: SmallStreamOptions): StreamBuilder {
  const builder = new StreamBuilder({ blocks: [{ name: 'pc.ram', pages: PAGE_COUNT }] }).header();
  if (hasReturnPath) builder.command(1).command(2, [0, 0, 0, 1]);
  if (mayPostcopy) builder.command(3, postcopyAdvice(PAGE_BYTES));
  return builder.ramStart();
}

function pages(builder: StreamBuilder, value: number): StreamBuilder {
  for (let page = 0; page < PAGE_COUNT; page++) {
    builder.page(0, page, { kind: 'page', bytes: pageOf(page, value) });
  }
  return builder.partEnd();
}

function pageOf(page: number, value: number): Uint8Array {
  return Uint8Array.from({ length: PAGE_BYTES }, (_, index) => value + page + (index % 7));
}

/** The guest's memory when a small stream is loaded. */
export function smallMemory(): Uint8Array {
  const pages = Array.from({ length: PAGE_COUNT }, (_, page) => pageOf(page, LAST_ROUND));
  return new Uint8Array(Buffer.concat(pages));
}

/** A whole pre-copy of a tiny guest: two rounds, then device state. */
export function smallStream(options: SmallStreamOptions = {}): Uint8Array {
  const { deviceBytes = 500 } = options;
  const builder = pages(pages(begin(options).partBegin(), 1).partBegin(3), LAST_ROUND);
  return builder.tail(new Uint8Array(deviceBytes).fill(9)).bytes();
}

/** The same as far as the end of its first round: QEMU would go on. */
export function unfinishedStream(options: SmallStreamOptions = {}): Uint8Array {
  return pages(begin(options).partBegin(), 1).bytes();
}
