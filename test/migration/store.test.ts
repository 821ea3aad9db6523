import { setTimeout as wait } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { HEADER_BYTES } from '../../src/frame/limits.ts';
import type { Lane } from '../../src/session/lane.ts';
import { encodeStore } from '../../src/stream/message.ts';
import { shut } from '../support/fake-qemu.ts';
import { waitUntil } from '../support/lab/processes.ts';
import { createPrng } from '../support/prng.ts';
import { loadStream, PAGE_BYTES, randomBytes, StreamBuilder } from '../support/qemu-stream.ts';
import { unfinishedStream } from '../support/small-stream.ts';
import { BOUND_MS, openEnds, openRelay } from './support.ts';

/** New pages of a round: half of them are like none before, half like those of all rounds. */
const ROUND_PAGES = 32;
const ROUNDS_MAX = 100;
const PAGES = ROUND_PAGES * ROUNDS_MAX;
const TAIL_BYTES = 120;
const BYTES_PER_SECOND = 4 * 1024 * 1024;

/** A guest whose memory fills up, and changes a little at the end; the stream comes in parts. */
class Guest {
  readonly #random = createPrng(2);
  readonly #builder = new StreamBuilder({ blocks: [{ name: 'pc.ram', pages: PAGES }] });
  readonly #common = Array.from({ length: ROUND_PAGES / 2 }, () => this.#newPage());
  readonly #own = new Map<number, Uint8Array>();
  #rounds = 0;
  #taken = 0;

  begin(): this {
    this.#builder.header().command(1).command(2, [0, 0, 0, 1]).ramStart();
    return this;
  }

  round(): this {
    this.#builder.partBegin();
    const first = this.#rounds * ROUND_PAGES;
    this.#rounds++;
    for (const [index, bytes] of this.#common.entries()) {
      const own = this.#newPage();
      this.#own.set(first + index, own);
      this.#builder.page(0, first + index, { kind: 'page', bytes: own });
      this.#builder.page(0, first + ROUND_PAGES / 2 + index, { kind: 'page', bytes });
    }
    this.#builder.partEnd();
    return this;
  }

  end(): this {
    this.#builder.partBegin(3);
    for (const [page, bytes] of this.#own) {
      bytes.fill(9, 100, 120);
      this.#builder.page(0, page, { kind: 'page', bytes });
    }
    this.#builder.partEnd().tail(new Uint8Array(100));
    return this;
  }

  /** What was added since the last call. */
  take(): Uint8Array {
    const bytes = this.#builder.bytes();
    const part = bytes.slice(this.#taken);
    this.#taken = bytes.length;
    return part;
  }

  get bytes(): Uint8Array {
    return this.#builder.bytes();
  }

  #newPage(): Uint8Array {
    return randomBytes(this.#random, PAGE_BYTES);
  }
}

/** The last contents of each page, as QEMU has them when it has loaded the stream. */
function lastPages(stream: Uint8Array): Map<string, string> {
  const { pages } = loadStream(stream);
  return new Map([...pages].map(([page, versions]) => [page, versions.at(-1)!]));
}

test('pages that come again are not sent again, and both ends count them', async () => {
  const storeBytes = PAGES * PAGE_BYTES;
  await using parts = await openRelay({ codec: 'lz4', storeBytes });
  const { source, destination, sourceQemu, destinationQemu } = parts;
  // Pages are kept where batches wait for paths.
  parts.sourceSession.setMaxBandwidth(BYTES_PER_SECOND);
  const guest = new Guest().begin();
  for (let left = ROUNDS_MAX; left > 0 && source.progress().pages.same === 0; left--) {
    await sourceQemu.write(guest.round().take());
    await wait(20);
  }
  await sourceQemu.write(guest.end().take());
  const tail = guest.bytes.slice(-TAIL_BYTES);
  // Contents that were overtaken by later ones may have been left out.
  const hasTail = () => {
    const received = destinationQemu.received();
    return Buffer.compare(received.slice(-TAIL_BYTES), tail) === 0;
  };
  await waitUntil('the last device state', hasTail, { timeoutMs: BOUND_MS });
  destinationQemu.write(shut(0));
  await waitUntil('the return path', () => sourceQemu.received().length === 8, {
    timeoutMs: BOUND_MS,
  });
  sourceQemu.close();
  const [sent, received] = [await source.result, await destination.result];
  expect(lastPages(destinationQemu.received())).toEqual(lastPages(guest.bytes));
  expect(sent).toMatchObject({ outcome: 'completed', effective: { storeBytes } });
  expect(received).toMatchObject({ outcome: 'completed', digest: { equal: true } });
  expect(sent.pages).toEqual(received.pages);
  expect(sent.pages.same).toBeGreaterThan(0);
  expect(sent.pages.delta).toBeGreaterThan(0);
  expect(sent.store.bytes).toBe(storeBytes);
  const all = (sent.pages.same + sent.pages.delta) * PAGE_BYTES;
  expect(sent.store.savedBytes).toBeGreaterThan(0.7 * all);
  expect(sent.store.savedBytes).toBeLessThanOrEqual(all);
  expect(sent.resent.pages).toBeGreaterThan(0);
  expect(sent.resent.wireBytes).toBeLessThan(sent.wireBytes);
  expect(received.resent).toEqual({ pages: 0, wireBytes: 0 });
});

test.each([
  ['the source', { source: 8 * PAGE_BYTES, destination: 16 * PAGE_BYTES }],
  ['the destination', { source: 16 * PAGE_BYTES, destination: 8 * PAGE_BYTES }],
])('the smaller of both budgets holds: that of %s', async (_, budgets) => {
  const { source: storeBytes, destination } = budgets;
  await using ends = await openEnds({ storeBytes }, { storeBytes: destination });
  ends.destination.resume();
  ends.source.resume();
  ends.source.write(unfinishedStream());
  const hasPages = () => ends.destination.progress().pageBytes > 0;
  await waitUntil('pages to arrive', hasPages, { timeoutMs: BOUND_MS });
  ends.source.destroy();
  const [sent, received] = [await ends.source.result, await ends.destination.result];
  expect(sent.store.bytes).toBe(8 * PAGE_BYTES);
  expect(received.store.bytes).toBe(destination);
  expect(sent.effective['storeBytes']).toBe(storeBytes);
});

test('a destination that states its store twice has broken the protocol', async () => {
  await using ends = await openEnds();
  const { lane } = ends.destination as unknown as { lane: Lane };
  lane.send({ ...encodeStore(4096, HEADER_BYTES), isOrdered: true });
  expect(await ends.source.result).toMatchObject({
    outcome: 'failed',
    guest: 'source',
    error: { code: 'ERR_MESSAGE', message: 'Destination stated its store twice' },
  });
});
