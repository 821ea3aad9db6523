// Requires: the built command.
import { describe, expect, test } from 'vitest';
import { BOUND_MS, Commands, ended, failureOf, resultOf } from '../support/command.ts';
import { FakeDestination, FakeSource, shut } from '../support/fake-qemu.ts';
import { waitUntil } from '../support/lab/processes.ts';
import { smallStream, unfinishedStream } from '../support/small-stream.ts';

const MAGIC = Buffer.from('QEVM');

/** What comes, whether the peer then closes, and what is said of it. */
const BYTES = [
  {
    what: 'an HTTP request',
    bytes: Buffer.from('GET / HTTP/1.1\r\nHost: x\r\n\r\n'),
    code: 'ERR_STREAM_MAGIC',
    says: /Not a QEMU migration stream: it begins with 47455420, expected 5145564d/,
  },
  {
    what: 'zeros',
    bytes: new Uint8Array(1 << 20),
    code: 'ERR_STREAM_MAGIC',
    says: /it begins with 00000000/,
  },
  {
    what: 'a TLS hello',
    bytes: Uint8Array.of(0x16, 3, 1, 2, 0, 1, 0, 1),
    code: 'ERR_STREAM_MAGIC',
    says: /it begins with 16030102.*multifd and TLS must be off/,
  },
  {
    what: 'another version',
    bytes: Buffer.concat([MAGIC, Uint8Array.of(0, 0, 0, 2), new Uint8Array(100)]),
    code: 'ERR_STREAM_VERSION',
    says: /its version is 2, expected 3/,
  },
  {
    what: 'a footer of another section',
    bytes: unfinishedStream().with(-1, 99),
    code: 'ERR_STREAM_FOOTER',
    says: /its footer is missing/,
  },
  {
    what: 'a page of a block that was not announced',
    bytes: strangePage(),
    code: 'ERR_STREAM_PAGE',
    says: /names a block or page that the stream did not announce/,
  },
  {
    what: 'the RAM of a multifd stream',
    bytes: multifdStream(),
    code: 'ERR_STREAM_MULTIFD',
    says: /multifd is on, and sends pages over channels of its own/,
  },
] as const;

/** Where a RAM section's end should be, multifd's mark: pages are waited for on other channels. */
function multifdStream(): Uint8Array {
  const bytes = unfinishedStream();
  const eosAt = bytes.length - 5 - 8;
  return bytes.with(eosAt + 6, 2).with(eosAt + 7, 0);
}

function strangePage(): Uint8Array {
  const bytes = unfinishedStream();
  const at = Buffer.from(bytes).lastIndexOf('pc.ram');
  return bytes.with(at, 'q'.charCodeAt(0));
}

/** Sends `bytes` from a source QEMU and tells how both commands ended. */
async function carry(bytes: Uint8Array, { closes }: { closes: boolean }) {
  await using commands = new Commands();
  await using destination = await FakeDestination.listen(commands.in);
  const { receiver, port } = await commands.receive(['--output', 'ndjson']);
  const sender = await commands.send(port, ['--output', 'ndjson']);
  await using source = await FakeSource.connect(commands.out);
  source.write(bytes);
  if (closes) source.close();
  else await source.untilClosed(BOUND_MS);
  const ends = { sent: await ended(sender), received: await ended(receiver) };
  return { ...ends, destination: destination.received() };
}

describe('what is no migration stream is refused, and QEMU gets its channel closed', () => {
  test.each(BYTES)('$what', async ({ bytes, code, says }) => {
    const { sent, received } = await carry(bytes, { closes: false });
    const failure = failureOf(sent.stderr);
    expect(failure).toMatchObject({ code, side: 'source' });
    expect(failure.message).toMatch(says);
    expect(failure.guest).toMatch(/^at the source, where it runs on/);
    expect(failure.advice).toMatch(/no migration stream/);
    expect(sent.code).toBe(1);
    expect(failureOf(received.stderr)).toMatchObject({ code, side: 'destination' });
    expect(resultOf(received.stdout)).toMatchObject({ outcome: 'failed', guest: 'source' });
    expect(received.code).toBe(1);
  });
});

describe('a stream that ends before its end is refused', () => {
  const whole = smallStream({ hasReturnPath: false });
  const cuts = [
    { where: 'before its first byte', bytes: new Uint8Array(0) },
    { where: 'in its header', bytes: whole.slice(0, 6) },
    { where: 'in its RAM', bytes: unfinishedStream().slice(0, -3000) },
    { where: 'between two rounds', bytes: unfinishedStream() },
    { where: 'in device state, without return path', bytes: whole.slice(0, -200) },
    { where: 'one byte before its end, without return path', bytes: whole.slice(0, -1) },
  ];
  test.each(cuts)('$where', async ({ bytes }) => {
    const { sent, received } = await carry(bytes, { closes: true });
    const failure = failureOf(sent.stderr);
    expect(failure).toMatchObject({ code: 'ERR_STREAM_TRUNCATED', side: 'source' });
    expect(failure.guest).toMatch(/^at the source, where it runs on/);
    expect(failure.advice).toMatch(/source QEMU cancelled, failed or died/);
    expect(sent.code).toBe(1);
    expect(failureOf(received.stderr).code).toBe('ERR_STREAM_TRUNCATED');
    expect(received.code).toBe(1);
  });

  test('but not the whole one', async () => {
    await using commands = new Commands();
    await using destination = await FakeDestination.listen(commands.in);
    const { receiver, port } = await commands.receive();
    const sender = await commands.send(port);
    await using source = await FakeSource.connect(commands.out);
    source.write(whole);
    source.close();
    await destination.untilBytes(whole.length, BOUND_MS);
    destination.close();
    const { code, stderr } = await ended(sender);
    expect(stderr).toMatch(/note: no return path/);
    expect([code, (await ended(receiver)).code]).toEqual([0, 0]);
  });
});

describe('where device state was sent and the source QEMU goes, the return path decides', () => {
  async function closeAfter(says: readonly Uint8Array[]) {
    await using commands = new Commands();
    await using destination = await FakeDestination.listen(commands.in);
    const { receiver, port } = await commands.receive();
    const sender = await commands.send(port);
    await using source = await FakeSource.connect(commands.out);
    const stream = smallStream();
    source.write(stream);
    await destination.untilBytes(stream.length, BOUND_MS);
    for (const bytes of says) destination.write(bytes);
    const wanted = says.reduce((sum, bytes) => sum + bytes.length, 0);
    await waitUntil('the return path', () => source.received().length >= wanted, {
      timeoutMs: BOUND_MS,
    });
    source.close();
    return { sent: await ended(sender), received: await ended(receiver) };
  }

  test('success was told: done', async () => {
    const { sent, received } = await closeAfter([shut(0)]);
    expect([sent.code, received.code]).toEqual([0, 0]);
  });

  test('failure was told: the guest is at the source', async () => {
    const { sent, received } = await closeAfter([shut(1)]);
    const failure = failureOf(sent.stderr);
    expect(failure).toMatchObject({ code: 'ERR_STREAM_TRUNCATED', phase: 'switchover' });
    expect(failure.message).toMatch(/after the destination failed \(1\)/);
    expect(failure.guest).toMatch(/^at the source/);
    expect([sent.code, received.code]).toEqual([1, 1]);
  });

  test('nothing was told: unknown, and there is no channel to hold', async () => {
    const { sent } = await closeAfter([]);
    const failure = failureOf(sent.stderr);
    expect(failure).toMatchObject({ code: 'ERR_STREAM_TRUNCATED', phase: 'switchover' });
    expect(failure.guest).toBe(
      'UNKNOWN: start neither copy; ask both QEMUs (query-status) which one runs',
    );
    expect(sent.stderr).not.toContain('holding the channel');
    expect(sent.code).toBe(6);
  });
});
