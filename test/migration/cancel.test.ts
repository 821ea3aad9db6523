import { describe, expect, test } from 'vitest';
import { waitUntil } from '../support/lab/processes.ts';
import { StreamBuilder } from '../support/qemu-stream.ts';
import { smallStream, unfinishedStream } from '../support/small-stream.ts';
import { BOUND_MS, openEnds, openRelay } from './support.ts';

describe('a signal of the source', () => {
  test('that is aborted before: cancelled at once', async () => {
    await using ends = await openEnds();
    const second = ends.sourceSession.openMigration({ signal: AbortSignal.abort() });
    expect(await second.result).toMatchObject({
      outcome: 'cancelled',
      guest: 'source',
      error: { code: 'ERR_CANCELLED', phase: 'setup' },
    });
  });

  test('in pre-copy: cancelled at both ends, and QEMU gets its channel closed', async () => {
    const controller = new AbortController();
    await using parts = await openRelay({ signal: controller.signal });
    parts.sourceQemu.write(unfinishedStream());
    await parts.destinationQemu.untilBytes(unfinishedStream().length, BOUND_MS);
    controller.abort();
    for (const result of [await parts.source.result, await parts.destination.result]) {
      expect(result).toMatchObject({ outcome: 'cancelled', guest: 'source' });
      expect(result.error).toMatchObject({ code: 'ERR_CANCELLED', phase: 'precopy' });
    }
    await parts.sourceQemu.untilClosed(BOUND_MS);
    await parts.destinationQemu.untilClosed(BOUND_MS);
  });

  const verbatim = new StreamBuilder({ blocks: [{ name: 'pc.ram', pages: 4 }] })
    .header()
    .command(1)
    .section(1, 7, 'vfio', 1)
    .raw(new Uint8Array(9000))
    .bytes();
  const postcopy = new StreamBuilder({ blocks: [{ name: 'pc.ram', pages: 4 }] })
    .header()
    .command(1)
    .ramStart()
    .partBegin()
    .page(0, 0, { kind: 'zero' })
    .partEnd()
    .command(4)
    .bytes();

  test.each([
    { when: 'in switchover', stream: smallStream() },
    { when: 'in post-copy', stream: postcopy },
    { when: 'in a stream whose switchover cannot be seen', stream: verbatim },
  ])('$when: too late, and said to be', async ({ stream }) => {
    const controller = new AbortController();
    await using parts = await openRelay({ signal: controller.signal });
    const { source, sourceQemu, destinationQemu } = parts;
    sourceQemu.write(stream);
    await destinationQemu.untilBytes(stream.length, BOUND_MS);
    controller.abort();
    expect(sourceQemu.isClosed()).toBe(false);
    // It still carries bytes.
    sourceQemu.write(Uint8Array.of(1, 2, 3));
    await destinationQemu.untilBytes(stream.length + 3, BOUND_MS);
    source.destroy();
    const { outcome, guest, fallbacks } = await source.result;
    expect(fallbacks).toContain('cancelled too late: switchover may have begun');
    expect([outcome, guest]).not.toContain('source');
    expect(outcome).toBe('failed');
  });

  test('after the end: nothing happens', async () => {
    const controller = new AbortController();
    await using ends = await openEnds({ signal: controller.signal });
    ends.source.resume().end(smallStream({ hasReturnPath: false }));
    ends.destination.resume();
    const result = await ends.source.result;
    controller.abort();
    expect(result).toMatchObject({ outcome: 'completed', guest: 'destination' });
    expect(await ends.destination.result).toMatchObject({ outcome: 'completed' });
  });
});

describe('a stream that is destroyed', () => {
  test('at the source in pre-copy', async () => {
    await using parts = await openRelay();
    parts.sourceQemu.write(unfinishedStream());
    await parts.destinationQemu.untilBytes(unfinishedStream().length, BOUND_MS);
    parts.source.destroy();
    for (const result of [await parts.source.result, await parts.destination.result]) {
      expect(result).toMatchObject({
        outcome: 'failed',
        guest: 'source',
        error: { code: 'ERR_DESTROYED', message: 'Migration stream was destroyed' },
      });
    }
    await parts.sourceQemu.untilClosed(BOUND_MS);
  });

  test('at the source with an error, which both ends tell', async () => {
    await using ends = await openEnds();
    ends.source.destroy(new Error('the disk is full'));
    expect((await ends.source.result).error!.message).toBe('the disk is full');
    expect((await ends.destination.result).error!.message).toBe('the disk is full');
  });

  test('at the destination before QEMU was opened: QEMU is not opened any more', async () => {
    await using ends = await openEnds();
    let opened = 0;
    ends.destination.relayWhenNeeded(() => {
      opened++;
      return Promise.reject(new Error('must not be asked'));
    });
    ends.destination.destroy();
    expect(await ends.destination.result).toMatchObject({ outcome: 'failed', guest: 'source' });
    ends.source.write(unfinishedStream());
    await ends.source.result;
    await waitUntil('the source to fail', () => ends.source.destroyed, { timeoutMs: BOUND_MS });
    expect(opened).toBe(0);
  });
});

test('the signal of the destination cancels both ends', async () => {
  await using ends = await openEnds();
  const controller = new AbortController();
  const never = new Promise<never>(() => {});
  ends.destination.relayWhenNeeded(() => never, { signal: controller.signal });
  ends.source.write(unfinishedStream());
  await waitUntil('memory to arrive', () => ends.destination.progress().round === 1, {
    timeoutMs: BOUND_MS,
  });
  controller.abort();
  for (const result of [await ends.destination.result, await ends.source.result]) {
    expect(result).toMatchObject({ outcome: 'cancelled', guest: 'source' });
  }
});
