/*
 * Puts pages into a Redis and gets them back, for some time each.
 *
 *   node staging-carry.js ADDRESS extents|pages MILLISECONDS
 *
 * extents: as a scatter does, as many on their way as the round trip asks for. pages: a key for
 * each page, one at a time. Writes the figures as JSON.
 */
import { randomFillSync } from 'node:crypto';
import { parseIntermediary } from '../../src/staging/address.ts';
import { Intermediary } from '../../src/staging/intermediary.ts';
import { EXTENT_BYTES_MAX } from '../../src/staging/limits.ts';
import { PAGE_BYTES } from '../../test/support/qemu-stream.ts';

const [address = '', mode = '', text = ''] = process.argv.slice(2);
const bytes = mode === 'extents' ? EXTENT_BYTES_MAX : PAGE_BYTES;
const connections = mode === 'extents' ? {} : { connections: 1 };
const value = randomFillSync(new Uint8Array(bytes));

const intermediary = await Intermediary.open(parseIntermediary(address), connections);
const workers = mode === 'extents' ? intermediary.slots : 1;
let count = 0;
const putMBs = await rateOf((at) => {
  count = Math.max(count, at + 1);
  return intermediary.put(`pl:${at}`, value);
});
const getMBs = await rateOf(async (at) => {
  const found = await intermediary.get(`pl:${at % count}`);
  if (found?.length !== bytes) throw new Error(`Value ${at % count} is not there`);
});
await intermediary[Symbol.asyncDispose]();
process.stdout.write(`${JSON.stringify({ putMBs, getMBs })}\n`);

/** Does `step` by all workers until time is over; MB per second. */
async function rateOf(step: (at: number) => Promise<void>): Promise<number> {
  const beganMs = performance.now();
  const endMs = beganMs + Number(text);
  let next = 0;
  const work = async (): Promise<void> => {
    while (performance.now() < endMs) await step(next++);
  };
  await Promise.all(Array.from({ length: workers }, work));
  return (next * bytes) / (performance.now() - beganMs) / 1000;
}
