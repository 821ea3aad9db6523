import { expect, test } from 'vitest';
import { type GuestPlace, PagelaneError } from '../../src/errors.ts';
import { Departure } from '../../src/migration/departure.ts';
import { SHUT_SUCCESS } from '../../src/migration/return-message.ts';
import { EndMark } from '../../src/stream/end-mark.ts';
import type { QemuChannel } from '../../src/stream/endpoint.ts';

const END = Uint8Array.of(0x7e, 0, 0, 0, 2, 0);
const ERROR = new PagelaneError('ERR_POSTCOPY_PAUSED', 'why');

/** Leaves a QEMU that wrote `written`, and what is still to come when it was told to stop. */
function leave(written: Uint8Array, canRefuse: boolean) {
  const calls: (string | Uint8Array)[] = [];
  const channel = {
    refuseMore: () => canRefuse,
    destroy: () => void calls.push('destroy'),
    write: (bytes: Uint8Array) => void calls.push(bytes),
    end: () => void calls.push('end'),
  } as unknown as QemuChannel;
  const endMark = new EndMark();
  endMark.push(written);
  const settled: { guest: GuestPlace; code: string }[] = [];
  const departure = new Departure(channel, {
    ...{ error: ERROR, endMark },
    settle: (guest, { code }) => void settled.push({ guest, code }),
  });
  return { calls, endMark, settled, departure };
}

test('a QEMU that has more to give finds its channel closed: it pauses', () => {
  const { calls, settled, departure } = leave(new Uint8Array(10), true);
  expect(calls).toEqual([]);
  departure.ended();
  expect(calls).toEqual(['destroy']);
  expect(settled).toEqual([{ guest: 'destination', code: 'ERR_POSTCOPY_PAUSED' }]);
});

test('a QEMU that has given all is told that it is done, once', () => {
  const { calls, endMark, settled, departure } = leave(new Uint8Array(10), true);
  endMark.push(END);
  departure.ended();
  departure.ended();
  expect(calls).toEqual([SHUT_SUCCESS, 'end']);
  expect(settled).toEqual([{ guest: 'unknown', code: 'ERR_POSTCOPY_ENDED' }]);
});

test('where QEMU cannot be refused, what it has written so far decides', async () => {
  const { calls, settled } = leave(END, false);
  expect(settled).toEqual([]);
  await new Promise((resolve) => setImmediate(resolve));
  expect(calls).toEqual([SHUT_SUCCESS, 'end']);
  expect(settled).toHaveLength(1);
});
