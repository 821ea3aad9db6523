/*
 * QEMU's migration stream: numbers, and where QEMU defines them. All integers are big-endian.
 */

/** First four bytes of a stream: "QEVM". Source: QEMU migration/savevm.c, QEMU_VM_FILE_MAGIC. */
export const STREAM_MAGIC = 0x5145564d;

/** The only version still in use. Source: QEMU_VM_FILE_VERSION. */
export const STREAM_VERSION = 3;

/** First byte of every top-level item. Source: QEMU migration/savevm.h, QEMU_VM_*. */
export const SectionType = {
  Eof: 0x00,
  Start: 0x01,
  Part: 0x02,
  End: 0x03,
  Full: 0x04,
  Subsection: 0x05,
  VmDescription: 0x06,
  Configuration: 0x07,
  Command: 0x08,
  Footer: 0x7e,
} as const;

/** Source: QEMU migration/savevm.c, enum qemu_vm_cmd. */
export const Command = {
  OpenReturnPath: 1,
  Ping: 2,
  PostcopyAdvise: 3,
  PostcopyListen: 4,
  PostcopyRun: 5,
  PostcopyRamDiscard: 6,
  Packaged: 7,
  EnableColo: 8,
  PostcopyResume: 9,
  RecvBitmap: 10,
  SwitchoverStart: 11,
} as const;

/** Low bits of a RAM record's header. Source: QEMU migration/ram.h, RAM_SAVE_FLAG_*. */
export const RamFlag = {
  Zero: 0x002,
  MemSize: 0x004,
  Page: 0x008,
  Eos: 0x010,
  Continue: 0x020,
  Xbzrle: 0x040,
  Hook: 0x080,
  CompressPage: 0x100,
  MultifdFlush: 0x200,
} as const;

/**
 * Chunks of a dirty-bitmap section. Source: QEMU migration/block-dirty-bitmap.c,
 * DIRTY_BITMAP_MIG_FLAG_*.
 */
export const BitmapFlag = {
  Eos: 0x01,
  Zeroes: 0x02,
  BitmapName: 0x04,
  DeviceName: 0x08,
  Start: 0x10,
  Complete: 0x20,
  Bits: 0x40,
  ExtraFlags: 0x80,
} as const;

/** Bytes of a footer: its type and the section's id. */
export const FOOTER_BYTES = 5;

/** Bytes of the EOS record that ends the body of a RAM section. */
export const EOS_BYTES = 8;

export const EOS_RECORD: Uint8Array = Uint8Array.of(0, 0, 0, 0, 0, 0, 0, RamFlag.Eos);

/** Bytes of a PART or END header: its type and the section's id. */
export const PART_HEADER_BYTES = 5;

/** Smallest page of any target, 4 KiB on x86; a configuration subsection says otherwise. */
export const PAGE_BITS_DEFAULT = 12;
