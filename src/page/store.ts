import { type BlockTable, native, type StoreIndex } from '../native.ts';
import { blockColumns, memoryBytes, type RamLayout } from './block.ts';

/*
 * Pages that both ends keep, so that they need not be sent again
 *
 *   1. agree    the destination says how much it can keep; the smaller of both budgets holds
 *   2. keep     the source's batches say which of their pages go into which slot
 *   3. refer    later batches name slots: the same page, an older version of it, a similar one
 *
 * The source alone decides, and refers only to what the destination has acknowledged: nothing has
 * to be asked. Source: docs/protocol.md, section 7.2.
 */

/* Fixed by the protocol: docs/protocol.md, section 8 */

/** Most slots of a store. */
const SLOTS_MAX = 2 ** 31;

/* Chosen by us */

/** Share of the memory that is free, as long as nobody says how much. */
const DEFAULT_SHARE = 1 / 4;

/** Bytes that an end may keep if nothing else is said: a share of the memory it could still get. */
export function defaultStoreBytes(): number {
  return Math.floor(process.availableMemory() * DEFAULT_SHARE);
}

/** Slots of a store of `storeBytes` for a guest: never more than it has pages. */
export function storeSlots(layout: RamLayout, storeBytes: number): number {
  const pageBytes = 2 ** layout.pageBits;
  const guestPages = Math.ceil(memoryBytes(layout) / pageBytes);
  return Math.min(SLOTS_MAX, guestPages, Math.floor(storeBytes / pageBytes));
}

/**
 * The blocks as a decoder takes them, with a store of so many slots.
 *
 * @throws {Error} ERR_OUT_OF_MEMORY If its memory cannot be reserved.
 */
export function openBlockTable(layout: RamLayout, slots: number): BlockTable {
  const { pageBits, hasFooter, sectionId } = layout;
  const table = new native.BlockTable(pageBits, hasFooter, sectionId);
  const { names, usedBytes } = blockColumns(layout.blocks);
  table.setBlocks(names, usedBytes);
  if (slots > 0) table.setStore(new native.PageStore(pageBits, slots));
  return table;
}

/**
 * The source's store; undefined if it has no slots.
 *
 * @throws {Error} ERR_OUT_OF_MEMORY If its memory cannot be reserved.
 */
export function openStoreIndex(layout: RamLayout, slots: number): StoreIndex | undefined {
  if (slots === 0) return undefined;
  const { names, usedBytes } = blockColumns(layout.blocks);
  return new native.StoreIndex(names, usedBytes, layout.pageBits, slots);
}
