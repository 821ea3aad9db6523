import { describe, expect, test } from 'vitest';
import { EventLog, type SessionEvent } from '../../src/session/events.ts';
import { EVENTS_MAX } from '../../src/session/limits.ts';

const CLOSED: SessionEvent = { type: 'closed' };

function opened(id: number): SessionEvent {
  return { type: 'pathOpened', id, local: 'a:1', remote: 'b:2' };
}

async function readAll(log: EventLog): Promise<SessionEvent[]> {
  const events: SessionEvent[] = [];
  for await (const event of log.read()) events.push(event);
  return events;
}

describe('EventLog', () => {
  test('gives every reader all of it, the past and what comes', async () => {
    const log = new EventLog();
    log.add(opened(1));
    const early = readAll(log);
    await undefined;
    log.add(opened(2));
    const late = readAll(log);
    log.add(CLOSED);
    const all = [opened(1), opened(2), CLOSED];
    expect(await Promise.all([early, late, readAll(log)])).toEqual([all, all, all]);
  });

  test('has nothing after its end', async () => {
    const log = new EventLog();
    log.add(CLOSED);
    log.add(opened(1));
    expect(await readAll(log)).toEqual([CLOSED]);
  });

  test('keeps the latest; who is late misses the oldest', async () => {
    const log = new EventLog();
    const reader = log.read();
    log.add(opened(0));
    expect((await reader.next()).value).toEqual(opened(0));
    for (let id = 1; id < 3 * EVENTS_MAX; id++) log.add(opened(id));
    const first = 2 * EVENTS_MAX;
    expect((await reader.next()).value).toEqual(opened(first));
    log.add(CLOSED);
    const all = await readAll(log);
    expect(all.length).toBe(EVENTS_MAX);
    expect(all.at(0)).toEqual(opened(first + 1));
    expect(all.at(-1)).toEqual(CLOSED);
  });

  test('lets a reader go', async () => {
    const log = new EventLog();
    log.add(opened(1));
    for await (const event of log.read()) {
      expect(event).toEqual(opened(1));
      break;
    }
  });
});
