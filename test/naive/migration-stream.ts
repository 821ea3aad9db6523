/*
 * Pages of a whole migration stream, found slowly and without the code under test: every RAM record
 * is followed, pages are kept as they end up at a destination. XBZRLE is applied.
 */

export interface StreamPages {
  /** Contents by `block:page`, as they are when RAM has ended. */
  readonly pages: ReadonlyMap<string, Buffer>;
  /** Records of each kind. */
  readonly records: Readonly<Record<'zero' | 'page' | 'xbzrle', number>>;
  readonly sections: number;
  /** Where RAM's END section ends. */
  readonly endOfRam: number;
}

const PAGE_BYTES = 4096;

/** @throws {Error} If the stream is not one that QEMU would load, as far as its end of RAM. */
export function readPages(stream: Buffer): StreamPages {
  const pages = new Map<string, Buffer>();
  const blocks = new Map<string, number>();
  const records = { zero: 0, page: 0, xbzrle: 0 };
  let at = 0;
  let sections = 0;
  let ram = -1;
  let block = '';

  const bytes = (count: number): Buffer => {
    at += count;
    return stream.subarray(at - count, at);
  };
  const u8 = (): number => bytes(1).readUInt8();
  const u16 = (): number => bytes(2).readUInt16BE();
  const u32 = (): number => bytes(4).readUInt32BE();
  const u64 = (): number => Number(bytes(8).readBigUInt64BE());
  const text = (): string => bytes(u8()).toString('latin1');
  const expect = (holds: boolean, what: string): void => {
    if (!holds) throw new Error(`Stream is wrong before ${at}: ${what}`);
  };

  const record = (address: number, flags: number): void => {
    if ((flags & 0x20) === 0) block = text();
    expect(address < (blocks.get(block) ?? -1), `no page ${address} in block "${block}"`);
    const key = `${block}:${address / PAGE_BYTES}`;
    if ((flags & 0x02) !== 0) {
      records.zero++;
      expect(u8() === 0, 'zero page is filled with something');
      pages.set(key, Buffer.alloc(PAGE_BYTES));
    } else if ((flags & 0x08) !== 0) {
      records.page++;
      pages.set(key, Buffer.from(bytes(PAGE_BYTES)));
    } else if ((flags & 0x40) !== 0) {
      records.xbzrle++;
      expect(u8() === 1, 'unknown XBZRLE encoding');
      applyXbzrle(pages.get(key)!, bytes(u16()));
    } else {
      expect(false, `record has flags ${flags}`);
    }
  };

  const ramBody = (): void => {
    for (;;) {
      const header = u64();
      const flags = header % PAGE_BYTES;
      const address = header - flags;
      if (flags === 0x10) return;
      if (flags !== 0x04) {
        record(address, flags);
        continue;
      }
      for (let left = address; left > 0; ) {
        const name = text();
        const usedBytes = u64();
        blocks.set(name, usedBytes);
        left -= usedBytes;
      }
    }
  };

  expect(u32() === 0x5145564d && u32() === 3, 'no header');
  expect(u8() === 7, 'no configuration');
  bytes(u32());
  for (;;) {
    const type = u8();
    if (type === 5) {
      const name = text();
      u32();
      expect(name === 'configuration/uuid' || name === 'configuration/capabilities', name);
      if (name === 'configuration/uuid') bytes(16);
      else for (let left = u32(); left > 0; left--) text();
    } else if (type === 8) {
      u16();
      bytes(u16());
    } else {
      const section = u32();
      if (type === 1) {
        expect(text() === 'ram', 'another section than RAM starts');
        bytes(8);
        ram = section;
      }
      expect(type <= 3 && section === ram, `section ${section} of type ${type}`);
      sections++;
      ramBody();
      expect(u8() === 0x7e && u32() === ram, 'no footer');
      if (type === 3) return { pages, records, sections, endOfRam: at };
    }
  }
}

/** Runs of bytes that stay, and of bytes that are new, each with its length as ULEB128. */
function applyXbzrle(page: Buffer, delta: Buffer): void {
  let from = 0;
  let to = 0;
  const length = (): number => {
    const low = delta[from++]!;
    return low < 0x80 ? low : (low & 0x7f) | (delta[from++]! << 7);
  };
  while (from < delta.length) {
    to += length();
    const count = length();
    delta.copy(page, to, from, from + count);
    from += count;
    to += count;
  }
}
