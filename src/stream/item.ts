import {
  BLOCK_BYTES_MAX,
  BLOCKS_MAX,
  PAGE_BITS_MAX,
  PAGE_BITS_MIN,
  type RamBlock,
} from '../page/block.ts';
import { viewOf } from './bytes.ts';
import {
  BitmapFlag,
  Command,
  FOOTER_BYTES,
  PART_HEADER_BYTES,
  RamFlag,
  SectionType,
  STREAM_MAGIC,
} from './format.ts';

/*
 * Items of QEMU's stream: how long they are, and the few facts we need of them.
 *
 * Each measure… function looks at bytes that begin with an item and returns the item's length,
 * NEED_MORE if that many bytes do not tell, or NOT_KNOWN if this is nothing we can measure.
 */

export const NEED_MORE = -1;
export const NOT_KNOWN = -2;

/** Bytes of the stream's header. */
export const HEADER_BYTES = 8;

/** Longest name of a machine, a capability or a block list that we take for real. */
const TEXT_BYTES_MAX = 4096;
const CAPABILITIES_MAX = 64;

/** Bytes of a START or FULL header around its name: type, id, length of name; instance, version. */
const SECTION_BEFORE_NAME_BYTES = 6;
const SECTION_AFTER_NAME_BYTES = 8;

/** Fields of virtio-mem's early state in front of its bitmap. */
const VIRTIO_MEM_BYTES = 36;
const VIRTIO_MEM_SECTION = 'virtio-mem-device-early';

/** Which optional fields a block list has. */
export interface ListForm {
  /** Every block has its guest address: capability x-ignore-shared. */
  readonly hasAddresses: boolean;
  /** A block may say its page size: post-copy was advised and page sizes differ. */
  readonly mayHavePageSizes: boolean;
}

/** True if the first bytes could still become QEMU's magic. */
export function mayBeHeader(bytes: Uint8Array): boolean {
  for (let index = 0; index < Math.min(4, bytes.length); index++) {
    if (bytes[index] !== ((STREAM_MAGIC >>> (24 - 8 * index)) & 0xff)) return false;
  }
  return true;
}

/**
 * Looks for the start of a recovered post-copy, which has a command and no header.
 *
 * @returns NOT_KNOWN if it is one, NEED_MORE if it may be, 0 if it is not.
 */
export function measureRecovery(bytes: Uint8Array): number {
  if (bytes[0] !== SectionType.Command) return 0;
  if (bytes.length < 2) return NEED_MORE;
  return bytes[1] === 0 ? NOT_KNOWN : 0;
}

/** Length of the configuration, or of one of its subsections; 0 if neither is there. */
export function measureConfiguration(bytes: Uint8Array): number {
  if (bytes[0] === SectionType.Configuration) {
    if (bytes.length < 5) return NEED_MORE;
    const textBytes = viewOf(bytes).getUint32(1);
    return textBytes > TEXT_BYTES_MAX ? NOT_KNOWN : whole(bytes, 5 + textBytes);
  }
  if (bytes[0] !== SectionType.Subsection) return 0;
  if (bytes.length < 2) return NEED_MORE;
  const bodyAt = 2 + bytes[1]! + 4;
  if (bytes.length < bodyAt) return NEED_MORE;
  switch (text(bytes, 2, bytes[1]!)) {
    case 'configuration/target-page-bits':
      return measurePageBits(bytes, bodyAt);
    case 'configuration/capabilities':
      return measureCapabilities(bytes, bodyAt);
    case 'configuration/uuid':
      return whole(bytes, bodyAt + 16);
    default:
      return NOT_KNOWN;
  }
}

function measurePageBits(bytes: Uint8Array, bodyAt: number): number {
  if (bytes.length < bodyAt + 4) return NEED_MORE;
  const pageBits = viewOf(bytes).getUint32(bodyAt);
  return pageBits < PAGE_BITS_MIN || pageBits > PAGE_BITS_MAX ? NOT_KNOWN : bodyAt + 4;
}

function measureCapabilities(bytes: Uint8Array, bodyAt: number): number {
  if (bytes.length < bodyAt + 4) return NEED_MORE;
  const count = viewOf(bytes).getUint32(bodyAt);
  if (count > CAPABILITIES_MAX) return NOT_KNOWN;
  let at = bodyAt + 4;
  for (let index = 0; index < count; index++) {
    if (at >= bytes.length) return NEED_MORE;
    const nameBytes = bytes[at]!;
    if (bytes.length < at + 1 + nameBytes) return NEED_MORE;
    // Pages of a mapped-ram stream are not in the stream.
    if (text(bytes, at + 1, nameBytes) === 'mapped-ram') return NOT_KNOWN;
    at += 1 + nameBytes;
  }
  return at;
}

/** What a configuration item says that matters to us. */
export function readConfiguration(bytes: Uint8Array): {
  pageBits: number | undefined;
  ignoresShared: boolean;
} {
  const nothing = { pageBits: undefined, ignoresShared: false };
  if (bytes[0] !== SectionType.Subsection) return nothing;
  const bodyAt = 2 + bytes[1]! + 4;
  const name = text(bytes, 2, bytes[1]!);
  if (name === 'configuration/target-page-bits') {
    return { ...nothing, pageBits: viewOf(bytes).getUint32(bodyAt) };
  }
  if (name === 'configuration/capabilities') {
    const names = text(bytes, bodyAt + 4, bytes.length - bodyAt - 4);
    return { ...nothing, ignoresShared: names.includes('x-ignore-shared') };
  }
  return nothing;
}

/** Length of a command, a footer, or the header of a section whose body we can follow. */
export function measureItem(
  bytes: Uint8Array,
  sections: { readonly ram: number; readonly bitmap: number },
  readsPostcopy = false,
): number {
  switch (bytes[0]) {
    case SectionType.Command:
      return measureCommand(bytes, readsPostcopy);
    case SectionType.Footer:
      return whole(bytes, FOOTER_BYTES);
    case SectionType.Start:
    case SectionType.Full:
      return measureSection(bytes);
    case SectionType.Part:
    case SectionType.End: {
      if (bytes.length < PART_HEADER_BYTES) return NEED_MORE;
      const section = viewOf(bytes).getUint32(1);
      const isKnown = section === sections.ram || section === sections.bitmap;
      return isKnown ? PART_HEADER_BYTES : NOT_KNOWN;
    }
    default:
      return NOT_KNOWN;
  }
}

function measureCommand(bytes: Uint8Array, readsPostcopy: boolean): number {
  if (bytes.length < 5) return NEED_MORE;
  if (beginsPostcopy(bytes)) {
    return readsPostcopy ? whole(bytes, 5 + viewOf(bytes).getUint16(3)) : NOT_KNOWN;
  }
  const view = viewOf(bytes);
  switch (view.getUint16(1)) {
    case Command.OpenReturnPath:
    case Command.Ping:
    case Command.PostcopyAdvise:
    case Command.SwitchoverStart:
      return whole(bytes, 5 + view.getUint16(3));
    default:
      return NOT_KNOWN;
  }
}

function measureSection(bytes: Uint8Array): number {
  if (bytes.length < SECTION_BEFORE_NAME_BYTES) return NEED_MORE;
  const headerBytes = SECTION_BEFORE_NAME_BYTES + bytes[5]! + SECTION_AFTER_NAME_BYTES;
  if (bytes.length < headerBytes) return NEED_MORE;
  const name = sectionName(bytes);
  if (bytes[0] === SectionType.Full) {
    return name === VIRTIO_MEM_SECTION ? whole(bytes, headerBytes + VIRTIO_MEM_BYTES) : NOT_KNOWN;
  }
  return name === 'ram' || name === 'dirty-bitmap' ? headerBytes : NOT_KNOWN;
}

/** Name in the header of a START or FULL section. */
export function sectionName(bytes: Uint8Array): string {
  return text(bytes, SECTION_BEFORE_NAME_BYTES, bytes[5]!);
}

/** Bytes of the bitmap behind virtio-mem's early state; the item is what `measureItem` measured. */
export function virtioMemBitmapBytes(bytes: Uint8Array): number {
  const at = SECTION_BEFORE_NAME_BYTES + bytes[5]! + SECTION_AFTER_NAME_BYTES;
  const view = viewOf(bytes);
  const regionBytes = Number(view.getBigUint64(at + 8));
  const blockBytes = Math.max(1, Number(view.getBigUint64(at + 16)));
  return Math.ceil(regionBytes / blockBytes / 64) * 8;
}

/** Length of the body of RAM's START section: the block list and the EOS record. */
export function measureRamStart(bytes: Uint8Array, form: ListForm): number {
  const at = walkBlocks(bytes, form, () => {});
  if (at < 0) return at;
  if (bytes.length < at + 8) return NEED_MORE;
  return viewOf(bytes).getBigUint64(at) === BigInt(RamFlag.Eos) ? at + 8 : NOT_KNOWN;
}

/** True if RAM's START section, as far as it is here, says that pages go over other channels. */
export function saysMultifd(bytes: Uint8Array, form: ListForm): boolean {
  const at = walkBlocks(bytes, form, () => {});
  return at >= 0 && isMultifdFlush(bytes.subarray(at));
}

/** True if a RAM record is one of multifd's. */
export function isMultifdFlush(bytes: Uint8Array): boolean {
  return bytes.length >= 8 && viewOf(bytes).getBigUint64(0) === BigInt(RamFlag.MultifdFlush);
}

/** The blocks of RAM's START section. */
export function readRamStart(bytes: Uint8Array, form: ListForm): RamBlock[] {
  const blocks: RamBlock[] = [];
  walkBlocks(bytes, form, (block) => blocks.push(block));
  return blocks;
}

function walkBlocks(bytes: Uint8Array, form: ListForm, visit: (block: RamBlock) => void): number {
  if (bytes.length < 8) return NEED_MORE;
  const view = viewOf(bytes);
  const header = view.getBigUint64(0);
  if ((header & 0x3ffn) !== BigInt(RamFlag.MemSize)) return NOT_KNOWN;
  let leftBytes = Number(header - BigInt(RamFlag.MemSize));
  let at = 8;
  for (let count = 0; leftBytes > 0; count++) {
    if (count === BLOCKS_MAX) return NOT_KNOWN;
    if (at >= bytes.length) return NEED_MORE;
    const nameBytes = bytes[at]!;
    const sizeAt = at + 1 + nameBytes;
    if (bytes.length < sizeAt + 8) return NEED_MORE;
    const usedBytes = Number(view.getBigUint64(sizeAt));
    if (nameBytes === 0 || usedBytes > Math.min(leftBytes, BLOCK_BYTES_MAX)) return NOT_KNOWN;
    visit({ name: text(bytes, at + 1, nameBytes), usedBytes });
    leftBytes -= usedBytes;
    at = sizeAt + 8 + (form.hasAddresses ? 8 : 0);
    if (form.mayHavePageSizes) {
      if (bytes.length < at + 8) return NEED_MORE;
      if (isPageSize(view.getBigUint64(at))) at += 8;
    }
  }
  return at;
}

/**
 * Tells a page size from what else may follow a block: a name (its first byte is not zero) or the
 * next record's header (less than the smallest page).
 */
function isPageSize(value: bigint): boolean {
  return value >= 4096n && value < 1n << 56n && (value & (value - 1n)) === 0n;
}

/** True if post-copy was advised for RAM blocks of several page sizes. */
export function hasSeveralPageSizes(summary: bigint): boolean {
  return (summary & (summary - 1n)) !== 0n;
}

/** Length of the head of a dirty-bitmap chunk; its bits, if any, follow. */
export function measureBitmapChunk(bytes: Uint8Array): number {
  const flags = bytes[0]!;
  if ((flags & BitmapFlag.ExtraFlags) !== 0) return NOT_KNOWN;
  let at = 1;
  for (const flag of [BitmapFlag.DeviceName, BitmapFlag.BitmapName]) {
    if ((flags & flag) === 0) continue;
    if (at >= bytes.length) return NEED_MORE;
    at += 1 + bytes[at]!;
  }
  if ((flags & BitmapFlag.Start) !== 0) at += 5;
  if ((flags & BitmapFlag.Bits) !== 0) at += (flags & BitmapFlag.Zeroes) !== 0 ? 12 : 20;
  return whole(bytes, at);
}

/** Bytes of bits behind the head of a dirty-bitmap chunk. */
export function bitmapDataBytes(bytes: Uint8Array): number {
  const flags = bytes[0]!;
  if ((flags & BitmapFlag.Bits) === 0 || (flags & BitmapFlag.Zeroes) !== 0) return 0;
  return Number(viewOf(bytes).getBigUint64(bytes.length - 8));
}

/** True of the commands of which a source sends one first when it switches to post-copy. */
export function beginsPostcopy(bytes: Uint8Array): boolean {
  if (bytes[0] !== SectionType.Command || bytes.length < 5) return false;
  const view = viewOf(bytes);
  const command = view.getUint16(1);
  const isPackage = command === Command.Packaged && view.getUint16(3) === 4;
  return isPackage || command === Command.PostcopyRamDiscard;
}

/** Bytes of the package behind its command; 0 behind any other item. */
export function packageBytes(bytes: Uint8Array): number {
  const isPackage = beginsPostcopy(bytes) && viewOf(bytes).getUint16(1) === Command.Packaged;
  return isPackage ? viewOf(bytes).getUint32(5) : 0;
}

/** Says in words what stands at the start of `bytes`. */
export function describeUnknown(bytes: Uint8Array): string {
  const type = bytes[0]!;
  if (type === SectionType.Command && bytes.length >= 3) {
    const command = viewOf(bytes).getUint16(1);
    const isPostcopy = command >= Command.PostcopyListen && command <= Command.RecvBitmap;
    return isPostcopy && command !== Command.EnableColo ? 'post-copy' : `command ${command}`;
  }
  const hasName = type === SectionType.Start || type === SectionType.Full;
  const nameEnd = SECTION_BEFORE_NAME_BYTES + (bytes[SECTION_BEFORE_NAME_BYTES - 1] ?? 0);
  if (hasName && bytes.length >= nameEnd) {
    return `section "${sectionName(bytes)}"`;
  }
  return `an item of type ${type}`;
}

function whole(bytes: Uint8Array, itemBytes: number): number {
  return bytes.length < itemBytes ? NEED_MORE : itemBytes;
}

function text(bytes: Uint8Array, at: number, count: number): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset + at, count).toString('latin1');
}
