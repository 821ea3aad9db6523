import { describe, expect, test } from 'vitest';
import { Arrivals } from '../../src/session/arrivals.ts';

describe('Arrivals', () => {
  test('gives each thing to one, in the order of asking', async () => {
    const arrivals = new Arrivals<number>();
    const takers = [arrivals.take(), arrivals.take()];
    for (const item of [1, 2, 3]) arrivals.add(item);
    expect(await Promise.all([...takers, arrivals.take()])).toEqual([1, 2, 3]);
  });

  test('rejects with the reason of the signal, before and while it waits', async () => {
    const arrivals = new Arrivals<number>();
    const reason = new Error('enough');
    await expect(arrivals.take({ signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    const controller = new AbortController();
    const waiting = arrivals.take({ signal: controller.signal });
    controller.abort(reason);
    await expect(waiting).rejects.toBe(reason);
    // Who gave up takes nothing from who asks next.
    const next = arrivals.take();
    arrivals.add(7);
    expect(await next).toBe(7);
  });

  test('is not harmed by a signal that fires afterwards', async () => {
    const arrivals = new Arrivals<number>();
    const controller = new AbortController();
    const waiting = arrivals.take({ signal: controller.signal });
    arrivals.add(1);
    controller.abort();
    expect(await waiting).toBe(1);
  });

  test('ends: for who waits, for who comes later, after what had arrived', async () => {
    const arrivals = new Arrivals<number>();
    const reason = new Error('over');
    const waiting = arrivals.take();
    arrivals.end(reason);
    arrivals.end(new Error('another end'));
    await expect(waiting).rejects.toBe(reason);
    arrivals.add(5);
    expect(await arrivals.take()).toBe(5);
    await expect(arrivals.take()).rejects.toBe(reason);
  });

  test('gives back what nobody took', () => {
    const arrivals = new Arrivals<number>();
    arrivals.add(1);
    arrivals.add(2);
    expect(arrivals.drain()).toEqual([1, 2]);
    expect(arrivals.drain()).toEqual([]);
  });
});
