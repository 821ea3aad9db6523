import { describe, expect, test } from 'vitest';
import { type FakeSource, shut } from '../support/fake-qemu.ts';
import { PAGE_BYTES, postcopyAdvice, StreamBuilder } from '../support/qemu-stream.ts';
import {
  addSwitchOver,
  BLOCKS,
  beginStream,
  contentOf,
  DONE,
  END,
  EOS,
  LOADED,
  PACKAGE,
  request,
  until,
  writerOf,
} from './postcopy-support.ts';
import { BOUND_MS, openRelay } from './support.ts';

/* Both ends of a post-copy whose source QEMU has a second channel. Tests play both QEMUs. */

const HUGE_BYTES = 2 * 1024 * 1024;

/** Bare records, as a second channel has them. */
function records(...pages: readonly (readonly [block: number, page: number])[]): Buffer {
  const builder = new StreamBuilder({ blocks: BLOCKS });
  for (const [block, page] of pages) {
    builder.page(block, page, { kind: 'page', bytes: contentOf(page) });
  }
  return Buffer.from(builder.bytes());
}

/** A migration with a second channel. Nothing of its post-copy has come. */
async function openWithSecond({ hostBytes = PAGE_BYTES, hasOneChannel = false } = {}) {
  const parts = await openRelay({}, { hasOneChannel });
  const { sourceQemu, destinationQemu } = parts;
  const builder = beginStream().command(3, postcopyAdvice(hostBytes)).ramStart();
  builder.partBegin().page(0, 0, { kind: 'zero' }).partEnd();
  const writer = writerOf(builder, sourceQemu);
  const { send } = writer;
  const second = await parts.openSecond();
  send();
  const given = () => Buffer.from(destinationQemu.received());
  const heard = () => Buffer.from(sourceQemu.received());
  /** What came on the destination QEMU's second channel. */
  const givenSecond = () => Buffer.from(destinationQemu.others()[0]?.received ?? []);
  /** Switches to post-copy, and lets the destination QEMU run the guest. */
  const switchOver = async (): Promise<void> => {
    await until('the second channel', () => destinationQemu.others().length === 1);
    addSwitchOver(builder);
    send();
    await destinationQemu.untilBytes(writer.sentBytes, BOUND_MS);
    destinationQemu.write(LOADED);
    await until('the sign of life', () => heard().includes(LOADED));
  };
  const ask = async (page: number): Promise<void> => {
    destinationQemu.write(request(page));
    await until(`the request for ${page}`, () => heard().includes(request(page)));
  };
  /** Both QEMUs end as they do. */
  const finish = async (): Promise<void> => {
    await until('the end of the stream', () => given().subarray(-END.length).equals(END));
    destinationQemu.write(shut(0));
    await until('its word', () => heard().includes(DONE));
    sourceQemu.close();
    second.close();
    destinationQemu.close();
  };
  const whats = { builder, send, second, given, heard, givenSecond, switchOver, ask, finish };
  return {
    ...parts,
    ...whats,
    [Symbol.asyncDispose]: async () => {
      await second[Symbol.asyncDispose]();
      await parts[Symbol.asyncDispose]();
    },
  };
}

describe('a post-copy that is read', () => {
  test('pages of both channels come once, and the end after the last that was asked for', async () => {
    await using parts = await openWithSecond();
    const { source, destination, builder, send, second, given, givenSecond } = parts;
    await parts.switchOver();
    for (const page of [5, 450, 7]) await parts.ask(page);
    second.write(records([0, 5]));
    await until('what is whole', () => given().includes(contentOf(5)));
    builder
      .partBegin()
      .page(0, 7, { kind: 'page', bytes: contentOf(7) })
      .partEnd();
    builder.partBegin(3).partEnd().raw([0]);
    send();
    await until('the first channel', () => given().includes(contentOf(7)));
    expect(given().includes(END)).toBe(false);
    const cut = records([1, 2]);
    await second.write(cut.subarray(0, 9));
    second.write(cut.subarray(9));
    await until('the rest of a page', () => given().includes(contentOf(2)));
    expect(given().includes(END)).toBe(false);
    expect(givenSecond().length).toBe(0);
    second.write(Buffer.concat([records([0, 450]), EOS]));
    await parts.finish();
    expect(givenSecond()).toEqual(EOS);
    const sent = await source.result;
    expect(sent).toMatchObject({ outcome: 'completed', guest: 'destination', fallbacks: [] });
    expect(sent.digest.equal).toBe(true);
    expect(sent.preemptBytes).toBe(2 * records([0, 5]).length + cut.length + EOS.length);
    const received = await destination.result;
    expect(received.outcome).toBe('completed');
    expect(received.gathered).toMatchObject({ directPages: 4, sourceRequests: { count: 3 } });
    await until('the second channel to end', () => parts.destinationQemu.others()[0]!.isClosed);
  });

  test('a destination QEMU without postcopy-preempt is no hindrance', async () => {
    await using parts = await openWithSecond();
    const { source, destination, destinationQemu, builder, send, second } = parts;
    await parts.switchOver();
    destinationQemu.dropOthers();
    await parts.ask(5);
    second.write(records([0, 5]));
    builder.partBegin(3).partEnd().raw([0]);
    send();
    await parts.finish();
    expect(await source.result).toMatchObject({ outcome: 'completed', fallbacks: [] });
    expect(await destination.result).toMatchObject({ outcome: 'completed', fallbacks: [] });
  });

  test('a page that was asked for and never comes: the destination has not all of it', async () => {
    await using parts = await openWithSecond();
    const { source, destination, builder, send, second, given } = parts;
    await parts.switchOver();
    await parts.ask(5);
    builder.partBegin(3).partEnd().raw([0]);
    send();
    second.close();
    const { error } = await source.result;
    // QEMU takes its own end for success.
    expect(error).toMatchObject({ code: 'ERR_POSTCOPY_ENDED' });
    expect(error!.message).toMatch(/has not given 1 pages that the destination asked for/);
    expect(await destination.result).toMatchObject({ error: { code: 'ERR_POSTCOPY_PAUSED' } });
    expect(given().includes(END)).toBe(false);
  });

  const page = records([0, 5]);
  test.each([
    ['another record', new StreamBuilder({ blocks: BLOCKS }).u64(0x204).bytes(), /another kind/],
    ['a page that there is not', records([0, 600]), /a block or page that the stream did not/],
    ['a page twice', Buffer.concat([page, page]), /a page comes twice/],
    ['something behind its end', Buffer.concat([page, EOS, page]), /something follows its end/],
  ])('%s on the second channel: paused', async (_, bytes, says) => {
    await using parts = await openWithSecond();
    await parts.switchOver();
    await parts.ask(5);
    parts.second.write(bytes);
    const { error, guest } = await parts.source.result;
    expect(error).toMatchObject({ code: 'ERR_POSTCOPY_PAUSED' });
    expect(error!.message).toMatch(says);
    expect(guest).toBe('destination');
  });
});

/** A post-copy that is carried as bytes, as far as the package. */
async function openVerbatim({ hasOneChannel = false } = {}) {
  const parts = await openWithSecond({ hostBytes: HUGE_BYTES, hasOneChannel });
  const { builder, send, given, destinationQemu } = parts;
  if (!hasOneChannel) {
    await until('the second channel', () => destinationQemu.others().length === 1);
  }
  addSwitchOver(builder);
  send();
  await until('the package', () => given().includes(PACKAGE));
  const finish = async (): Promise<void> => {
    destinationQemu.write(shut(0));
    await until('its word', () => parts.heard().includes(DONE));
    parts.sourceQemu.close();
    parts.second.close();
    destinationQemu.close();
  };
  return { ...parts, finish };
}

describe('a post-copy that is carried as bytes', () => {
  test('so is its second channel, whatever is in it', async () => {
    await using parts = await openVerbatim();
    const { second, givenSecond } = parts;
    const wanted = Buffer.alloc(3 << 20, records([0, 5], [0, 6], [1, 2]));
    second.write(wanted);
    await until('all of it', () => givenSecond().length === wanted.length);
    expect(givenSecond().equals(wanted)).toBe(true);
    // As what multifd says first, but in the middle of a page.
    second.write(Uint8Array.of(0x11, 0x22, 0x33, 0x44, 5));
    await until('the rest', () => givenSecond().length === wanted.length + 5);
    await parts.finish();
    const sent = await parts.source.result;
    expect(sent).toMatchObject({ outcome: 'completed', digest: { equal: true } });
    expect(await parts.destination.result).toMatchObject({ outcome: 'completed' });
  });

  test.each(['before anything is there', 'after that'])(
    'a destination QEMU that drops its second channel %s misses pages: it is said',
    async (when) => {
      await using parts = await openVerbatim();
      const { second, givenSecond, destinationQemu } = parts;
      if (when === 'before anything is there') destinationQemu.dropOthers();
      second.write(records([0, 5]));
      if (when === 'after that') {
        await until('the page', () => givenSecond().length > PAGE_BYTES);
        destinationQemu.dropOthers();
      }
      const received = await parts.destination.result;
      expect(received.error).toMatchObject({ code: 'ERR_QEMU_CHANNELS' });
      expect(received.error!.message).toContain('it misses pages');
      const sent = await parts.source.result;
      expect(sent.outcome).toBe('failed');
      expect(sent.guest).not.toBe('source');
    },
  );

  test('nor can it have one if the embedding program opens but one', async () => {
    await using parts = await openVerbatim({ hasOneChannel: true });
    parts.second.write(records([0, 5]));
    const { error } = await parts.destination.result;
    expect(error).toMatchObject({ code: 'ERR_QEMU_CHANNELS' });
  });

  test('one that drops it at its end, and then says that it has all, has all', async () => {
    await using parts = await openVerbatim();
    parts.second.write(records([0, 5]));
    await until('the page', () => parts.givenSecond().length > PAGE_BYTES);
    parts.destinationQemu.dropOthers();
    await new Promise((resolve) => setTimeout(resolve, 50));
    await parts.finish();
    expect(await parts.destination.result).toMatchObject({ outcome: 'completed' });
    expect(await parts.source.result).toMatchObject({ outcome: 'completed' });
  });
});

describe('further channels', () => {
  test('of multifd say so at once: the guest is at the source', async () => {
    await using parts = await openRelay();
    await using second = await parts.openSecond();
    second.write(Uint8Array.of(0x11, 0x22, 0x33, 0x44, 0, 0, 0, 1));
    const result = await parts.source.result;
    expect(result).toMatchObject({ guest: 'source', error: { code: 'ERR_QEMU_CHANNELS' } });
    await parts.sourceQemu.untilClosed(BOUND_MS);
    // A QEMU whose other channels close before the first may hang.
    expect(second.isClosed()).toBe(false);
    await second.write(Buffer.alloc(4 << 20));
  });

  test('that are silent do no harm, whenever they come', async () => {
    await using parts = await openRelay();
    await using early = await parts.openSecond();
    parts.source.destroy();
    await parts.source.result;
    await early.write(Buffer.alloc(4 << 20));
    await using late = await parts.openSecond();
    await late.write(Buffer.alloc(4 << 20));
  });

  test('do none beside the second one either, nor when all was sent', async () => {
    await using parts = await openWithSecond();
    const { builder, send } = parts;
    const others: FakeSource[] = [];
    for (let count = 0; count < 20; count++) others.push(await parts.openSecond());
    await parts.switchOver();
    await parts.ask(5);
    parts.second.write(records([0, 5]));
    builder.partBegin(3).partEnd().raw([0]);
    send();
    await until('the end of the stream', () => parts.given().subarray(-END.length).equals(END));
    others.push(await parts.openSecond());
    await others.at(-1)!.write(Buffer.alloc(4 << 20));
    await parts.finish();
    expect(await parts.source.result).toMatchObject({ outcome: 'completed' });
    for (const other of others) await other[Symbol.asyncDispose]();
  });

  test.each([1, 2])(
    'are there before what was written after them, however late they are seen: %i',
    async () => {
      await using parts = await openRelay();
      const { sourceQemu, destinationQemu } = parts;
      const builder = beginStream().command(3, postcopyAdvice(PAGE_BYTES)).ramStart().partBegin();
      const writer = writerOf(builder, sourceQemu);
      writer.send();
      const isThere = () => destinationQemu.received().length > writer.sentBytes / 2;
      await until('the stream', isThere);
      builder.page(0, 0, { kind: 'zero' }).partEnd();
      // What is ready first is read first, with all that comes until then.
      writer.send();
      const joining = parts.openSecond();
      addSwitchOver(builder).partBegin(3).partEnd().raw([0]);
      writer.send();
      for (const untilMs = performance.now() + 50; performance.now() < untilMs; );
      await using second = await joining;
      await until('the second channel', () => destinationQemu.others().length === 1);
      destinationQemu.write(LOADED);
      const given = () => Buffer.from(destinationQemu.received());
      await until('the end of the stream', () => given().subarray(-END.length).equals(END));
      destinationQemu.write(shut(0));
      await until('its word', () => Buffer.from(sourceQemu.received()).includes(DONE));
      sourceQemu.close();
      second.close();
      destinationQemu.close();
      expect(await parts.source.result).toMatchObject({ outcome: 'completed' });
    },
  );
});
