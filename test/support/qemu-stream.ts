/*
 * A naive QEMU: writes migration streams as QEMU does, and loads them as QEMU does, with every
 * check that QEMU makes.
 * Knows nothing of the code under test.
 */

export const PAGE_BYTES = 4096;

export interface Block {
  readonly name: string;
  readonly pages: number;
}

/** What POSTCOPY_ADVISE says of page sizes: all those of the host together, and the guest's. */
export function postcopyAdvice(hostBytes: number): Uint8Array {
  const bytes = Buffer.alloc(16);
  bytes.writeBigUInt64BE(BigInt(hostBytes), 0);
  bytes.writeBigUInt64BE(BigInt(PAGE_BYTES), 8);
  return bytes;
}

/** Appends QEMU's bytes. */
export class StreamBuilder {
  readonly #parts: Uint8Array[] = [];
  readonly #hasFooter: boolean;
  readonly #blocks: readonly Block[];
  readonly ramSection = 2;
  #lastBlock = -1;

  constructor({ blocks, hasFooter = true }: { blocks: readonly Block[]; hasFooter?: boolean }) {
    this.#blocks = blocks;
    this.#hasFooter = hasFooter;
  }

  bytes(): Uint8Array {
    return new Uint8Array(Buffer.concat(this.#parts));
  }

  raw(bytes: Uint8Array | readonly number[]): this {
    this.#parts.push(Uint8Array.from(bytes));
    return this;
  }

  u16(value: number): this {
    return this.raw([value >> 8, value & 255]);
  }

  u32(value: number): this {
    return this.raw([value >>> 24, (value >>> 16) & 255, (value >>> 8) & 255, value & 255]);
  }

  u64(value: number | bigint): this {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64BE(BigInt(value));
    return this.raw(bytes);
  }

  text(text: string): this {
    return this.raw([text.length]).raw(Buffer.from(text, 'latin1'));
  }

  header(machine = 'pc-q35-7.2'): this {
    this.u32(0x5145564d).u32(3);
    return this.raw([7]).u32(machine.length).raw(Buffer.from(machine));
  }

  subsection(name: string, body: Uint8Array | readonly number[]): this {
    return this.raw([5]).text(name).u32(1).raw(body);
  }

  command(id: number, payload: Uint8Array | readonly number[] = []): this {
    return this.raw([8]).u16(id).u16(payload.length).raw(payload);
  }

  footer(section: number): this {
    return this.#hasFooter ? this.raw([0x7e]).u32(section) : this;
  }

  section(type: number, id: number, name: string, version: number): this {
    return this.raw([type]).u32(id).text(name).u32(0).u32(version);
  }

  ramStart(perBlock: (block: Block) => readonly number[] = () => []): this {
    this.section(1, this.ramSection, 'ram', 4);
    const total = this.#blocks.reduce((sum, block) => sum + block.pages * PAGE_BYTES, 0);
    this.u64(BigInt(total) | 4n);
    for (const block of this.#blocks) {
      this.text(block.name)
        .u64(block.pages * PAGE_BYTES)
        .raw(perBlock(block));
    }
    return this.u64(0x10).footer(this.ramSection);
  }

  partBegin(type = 2): this {
    return this.raw([type]).u32(this.ramSection);
  }

  partEnd(): this {
    return this.u64(0x10).footer(this.ramSection);
  }

  /** One page record; names the block as QEMU does, or always if `isNamed`. */
  page(block: number, page: number, kind: PageRecord, isNamed = false): this {
    const continues = this.#lastBlock === block && !isNamed;
    this.#lastBlock = block;
    const flag = { zero: 2, page: 8, xbzrle: 0x40, compress: 0x100 }[kind.kind];
    this.u64(BigInt(page) * BigInt(PAGE_BYTES) + BigInt(flag | (continues ? 0x20 : 0)));
    if (!continues) this.text(this.#blocks[block]!.name);
    if (kind.kind === 'zero') return this.raw([0]);
    if (kind.kind === 'xbzrle') return this.raw([1]).u16(kind.bytes.length).raw(kind.bytes);
    if (kind.kind === 'compress') return this.u32(kind.bytes.length).raw(kind.bytes);
    return this.raw(kind.bytes);
  }

  /** Device state, EOF and a description whose length is right. */
  tail(deviceState: Uint8Array): this {
    const description = Buffer.from('{"page_size": 4096, "devices": []}');
    this.section(4, 9, 'cpu', 12).raw(deviceState).footer(9).raw([0, 6]).u32(description.length);
    return this.raw(description);
  }
}

export type PageRecord =
  | { readonly kind: 'zero' }
  | { readonly kind: 'page' | 'xbzrle' | 'compress'; readonly bytes: Uint8Array };

/** What a destination QEMU has after loading a pre-copy stream up to the end of RAM. */
export interface Loaded {
  /** Every record in the order of the stream, by page. */
  readonly pages: ReadonlyMap<string, readonly string[]>;
  /** Commands, in order. */
  readonly commands: readonly number[];
  /** Everything behind RAM's END section. */
  readonly tail: Uint8Array;
  readonly sections: number;
}

/**
 * Loads a pre-copy stream as strictly as QEMU does.
 *
 * @throws {Error} If QEMU would refuse it.
 */
export function loadStream(stream: Uint8Array, { hasFooter = true } = {}): Loaded {
  return new Loader(stream, hasFooter).load();
}

class Loader {
  readonly #view: DataView;
  readonly #bytes: Uint8Array;
  readonly #hasFooter: boolean;
  readonly #blocks = new Map<string, number>();
  readonly #pages = new Map<string, string[]>();
  readonly #commands: number[] = [];
  #at = 0;
  #lastBlock = '';
  #sections = 0;

  constructor(bytes: Uint8Array, hasFooter: boolean) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#hasFooter = hasFooter;
  }

  load(): Loaded {
    this.#expect(this.#u32() === 0x5145564d && this.#u32() === 3, 'magic and version');
    if (this.#peek() === 7) this.#configuration();
    let ramSection = -1;
    for (;;) {
      const type = this.#u8();
      if (type === 8) {
        this.#commands.push(this.#u16());
        this.#skip(this.#u16());
      } else if (type === 1) {
        ramSection = this.#u32();
        this.#expect(this.#text() === 'ram', 'only RAM sections');
        this.#skip(8);
        this.#ram(true);
        this.#footer(ramSection);
      } else if (type === 2 || type === 3) {
        this.#expect(this.#u32() === ramSection, 'RAM section id');
        this.#sections++;
        this.#ram(false);
        this.#footer(ramSection);
        if (type === 3) break;
      } else {
        throw new Error(`Unknown section type ${type} at ${this.#at - 1}`);
      }
    }
    const tail = this.#bytes.slice(this.#at);
    return { pages: this.#pages, commands: this.#commands, tail, sections: this.#sections };
  }

  #configuration(): void {
    this.#u8();
    this.#skip(this.#u32());
    while (this.#peek() === 5) {
      this.#u8();
      const name = this.#text();
      this.#skip(4);
      if (name === 'configuration/uuid') this.#skip(16);
      else if (name === 'configuration/target-page-bits') this.#skip(4);
      else throw new Error(`Unknown subsection ${name}`);
    }
  }

  #ram(isStart: boolean): void {
    for (;;) {
      const header = this.#u64();
      const flags = Number(header & 0xfffn);
      const address = Number(header & ~0xfffn);
      if (flags === 0x10) return;
      if (flags === 4) {
        this.#expect(isStart, 'MEM_SIZE only in START');
        for (let left = address; left > 0; ) {
          const name = this.#text();
          const usedBytes = Number(this.#u64());
          this.#blocks.set(name, usedBytes);
          left -= usedBytes;
        }
        continue;
      }
      this.#record(address, flags);
    }
  }

  #record(address: number, flags: number): void {
    if ((flags & 0x20) === 0) this.#lastBlock = this.#text();
    const usedBytes = this.#blocks.get(this.#lastBlock);
    this.#expect(usedBytes !== undefined, `known block "${this.#lastBlock}"`);
    this.#expect(address < usedBytes!, 'address inside its block');
    const from = this.#at;
    switch (flags & ~0x20) {
      case 2:
        this.#expect(this.#u8() === 0, 'fill of zero');
        break;
      case 8:
        this.#skip(PAGE_BYTES);
        break;
      case 0x40:
        this.#expect(this.#u8() === 1, 'XBZRLE encoding');
        this.#skip(this.#u16());
        break;
      case 0x100:
        this.#skip(this.#u32());
        break;
      default:
        throw new Error(`Unknown combination of migration flags: 0x${flags.toString(16)}`);
    }
    const key = `${this.#lastBlock}:${address / PAGE_BYTES}`;
    const versions = this.#pages.get(key) ?? [];
    const content = Buffer.from(this.#bytes.subarray(from, this.#at)).toString('base64');
    versions.push(`${flags & ~0x20}:${content}`);
    this.#pages.set(key, versions);
  }

  #footer(section: number): void {
    if (!this.#hasFooter) return;
    this.#expect(this.#u8() === 0x7e && this.#u32() === section, 'Missing section footer');
  }

  #expect(condition: boolean, what: string): void {
    if (!condition) throw new Error(`Cannot load stream at ${this.#at}: expected ${what}`);
  }

  #peek(): number {
    return this.#view.getUint8(this.#at);
  }

  #u8(): number {
    return this.#view.getUint8(this.#at++);
  }

  #u16(): number {
    this.#at += 2;
    return this.#view.getUint16(this.#at - 2);
  }

  #u32(): number {
    this.#at += 4;
    return this.#view.getUint32(this.#at - 4);
  }

  #u64(): bigint {
    this.#at += 8;
    return this.#view.getBigUint64(this.#at - 8);
  }

  #text(): string {
    const count = this.#u8();
    this.#skip(count);
    return Buffer.from(this.#bytes.subarray(this.#at - count, this.#at)).toString('latin1');
  }

  #skip(count: number): void {
    this.#at += count;
    this.#expect(this.#at <= this.#bytes.length, 'more bytes');
  }
}

/** A pre-copy stream of every kind of record, made of a seed. */
export function randomStream(random: () => number, { hasFooter = true } = {}): Uint8Array {
  const blocks = [
    { name: 'pc.ram', pages: 96 },
    { name: 'vga.vram', pages: 24 },
    { name: '/rom@etc/acpi/tables', pages: 5 },
  ];
  const builder = new StreamBuilder({ blocks, hasFooter });
  const integer = (below: number): number => Math.floor(random() * below);
  builder.header().command(1).command(2, [0, 0, 0, 1]).ramStart();
  const rounds = 1 + integer(4);
  for (let round = 0; round <= rounds; round++) {
    const isLast = round === rounds;
    builder.partBegin(isLast ? 3 : 2);
    for (const [index, block] of blocks.entries()) {
      for (let page = 0; page < block.pages; page++) {
        if (round > 0 && random() < 0.7) continue;
        if (!isLast && random() < 0.06) {
          builder.partEnd();
          if (random() < 0.1) builder.partBegin().partEnd();
          if (random() < 0.1) builder.command(2, [0, 0, 0, 9]);
          builder.partBegin();
        }
        builder.page(index, page, randomRecord(random, round), random() < 0.03);
      }
    }
    builder.partEnd();
  }
  return builder.tail(randomBytes(random, integer(3000))).bytes();
}

function randomRecord(random: () => number, round: number): PageRecord {
  const dice = random();
  if (dice < 0.3) return { kind: 'zero' };
  if (dice < 0.4 && round > 0)
    return { kind: 'xbzrle', bytes: randomBytes(random, 1 + random() * 90) };
  if (dice < 0.45) return { kind: 'compress', bytes: randomBytes(random, 20 + random() * 300) };
  if (dice < 0.55) return { kind: 'page', bytes: new Uint8Array(PAGE_BYTES) };
  if (dice < 0.8) return { kind: 'page', bytes: new Uint8Array(PAGE_BYTES).fill(random() * 256) };
  return { kind: 'page', bytes: randomBytes(random, PAGE_BYTES) };
}

export function randomBytes(random: () => number, count: number): Uint8Array {
  const bytes = new Uint8Array(Math.floor(count));
  for (let index = 0; index < bytes.length; index++) bytes[index] = random() * 256;
  return bytes;
}
