import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { waitForEnd, whileStopped } from '../../src/cli/stopped-guest.ts';
import { QmpClient } from '../../src/qmp/client.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'pagelane-stopped-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

interface Answers {
  readonly running?: boolean;
  /** What it says of its migration, the last again and again. */
  readonly statuses?: readonly string[];
  /** Commands that it refuses. */
  readonly refused?: readonly string[];
}

const QUERIES = ['qmp_capabilities', 'query-status', 'query-migrate', 'query-migrate-parameters'];

/** Does something with a monitor that answers so. What it was told to do, beside being asked. */
async function withMonitor(
  { running = true, statuses = ['none'], refused = [] }: Answers,
  act: (qmp: QmpClient) => Promise<unknown>,
): Promise<{ told: string[]; outcome: unknown }> {
  const told: string[] = [];
  const left = [...statuses];
  const monitor = createServer((socket) => {
    socket.on('error', () => {});
    createInterface({ input: socket }).on('line', (line) => {
      const { execute, id } = JSON.parse(line) as { execute: string; id: number };
      if (!QUERIES.includes(execute)) told.push(execute);
      const isAsked = execute === 'query-migrate';
      const status = isAsked && left.length > 1 ? left.shift() : left[0];
      const value = { running, 'max-bandwidth': 1e6, ...(isAsked && { status }) };
      const answer = refused.includes(execute) ? { error: { desc: 'no' } } : { return: value };
      socket.write(`${JSON.stringify({ ...answer, id })}\n`);
    });
  });
  monitor.listen(join(folder, 'monitor'));
  await once(monitor, 'listening');
  try {
    using qmp = await QmpClient.connect(join(folder, 'monitor'));
    const outcome = await act(qmp).catch((error: unknown) => error);
    return { told, outcome };
  } finally {
    monitor.close();
  }
}

const failing = (qmp: QmpClient) =>
  whileStopped(qmp, () => Promise.reject(new Error('it does not work')));

const BEGUN = ['stop', 'migrate-set-capabilities', 'migrate-set-parameters'];
const ENDED = ['migrate_cancel', 'cont', 'migrate-set-parameters'];

test('the guest stays stopped when the work is done', async () => {
  const work = (qmp: QmpClient) => whileStopped(qmp, () => Promise.resolve(7));
  const { told, outcome } = await withMonitor({}, work);
  expect(outcome).toBe(7);
  expect(told).toEqual(BEGUN);
});

test.each([
  ['new', ['none']],
  ['came by migration', ['completed']],
  ['tried to migrate before', ['failed']],
  ['takes its time to fail', ['none', 'active', 'cancelling', 'cancelled']],
])('a guest that ran runs on if the work fails: one that %s', async (_, statuses) => {
  const { told, outcome } = await withMonitor({ statuses }, failing);
  expect(outcome).toMatchObject({ message: 'it does not work' });
  expect(told).toEqual([...BEGUN, ...ENDED]);
});

test('a guest that came by migration runs on if QEMU refuses what has to be set', async () => {
  const refused = ['migrate-set-capabilities'];
  const { told, outcome } = await withMonitor({ statuses: ['completed'], refused }, failing);
  expect(outcome).toMatchObject({ code: 'ERR_QMP', message: expect.stringContaining('refused') });
  expect(told).toEqual(['stop', 'migrate-set-capabilities', ...ENDED]);
});

test('a guest that stood still does not begin to run', async () => {
  const { told } = await withMonitor({ running: false }, failing);
  expect(told).toEqual([...BEGUN, ...ENDED.filter((command) => command !== 'cont')]);
});

test('a guest that cannot be made to run on is said to be stopped, and why', async () => {
  const { outcome } = await withMonitor({ refused: ['cont'] }, failing);
  const message = expect.stringMatching(/^it does not work; .* stopped there: .*"cont"$/);
  expect(outcome).toMatchObject({ code: 'ERR_QMP', message });
});

test.each(['setup', 'active', 'pre-switchover', 'device', 'postcopy-active', 'postcopy-paused'])(
  'a guest that is on its way already is left alone: %s',
  async (status) => {
    const { told, outcome } = await withMonitor({ statuses: [status] }, failing);
    expect(outcome).toMatchObject({ message: expect.stringContaining(`"${status}"`) });
    expect(told).toEqual([]);
  },
);

test('the end of a migration is waited for', async () => {
  const statuses = ['active', 'device', 'completed'];
  expect((await withMonitor({ statuses }, waitForEnd)).outcome).toBe('completed');
});
