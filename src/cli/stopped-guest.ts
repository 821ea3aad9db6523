import { setTimeout as sleep } from 'node:timers/promises';
import { messageOf, PagelaneError, type QmpClient } from '../index.ts';

/*
 * A QEMU whose guest stands still while something is done to it
 */

/* Chosen by us */
const LOOK_MS = 50;
const END_TIMEOUT_MS = 60_000;

/* Fixed by QEMU: qapi/migration.json, MigrationStatus */
const ENDED = ['none', 'completed', 'failed', 'cancelled'];

/**
 * Stops the guest, and sets QEMU up for a migration that `work` takes; if that fails, the guest
 * runs on as it did.
 *
 * @throws {PagelaneError} ERR_QMP If it migrates already: then nothing is done.
 * @throws {PagelaneError} ERR_QMP If `work` fails and the guest cannot be made to run on.
 */
export async function whileStopped<Value>(
  qmp: QmpClient,
  work: () => Promise<Value>,
): Promise<Value> {
  const status = await statusOf(qmp);
  if (!ENDED.includes(status)) {
    throw new PagelaneError('ERR_QMP', `Source QEMU migrates already: it says "${status}"`);
  }
  const { running } = (await qmp.execute('query-status')) as { readonly running: boolean };
  const before = (await qmp.execute('query-migrate-parameters')) as Record<string, unknown>;
  const { 'max-bandwidth': bandwidth } = before;
  const capabilities = [{ capability: 'postcopy-ram', state: true }];
  try {
    await qmp.execute('stop');
    await qmp.execute('migrate-set-capabilities', { capabilities });
    await qmp.execute('migrate-set-parameters', { 'max-bandwidth': 0 });
    return await work();
  } catch (error) {
    try {
      await qmp.execute('migrate_cancel');
      await waitForEnd(qmp);
      if (running) await qmp.execute('cont');
      await qmp.execute('migrate-set-parameters', { 'max-bandwidth': bandwidth });
    } catch (cause) {
      const text =
        `${messageOf(error)}; the guest is in the source QEMU, but may be stopped there: ` +
        `${messageOf(cause)}; have its monitor do "cont"`;
      throw new PagelaneError('ERR_QMP', text, { cause: error });
    }
    throw error;
  }
}

/**
 * Waits until QEMU migrates no more.
 *
 * @returns How it ended; if it has not begun, "none", or how its guest came to it.
 * @throws {PagelaneError} ERR_QMP If it still does after a minute.
 */
export async function waitForEnd(qmp: QmpClient): Promise<string> {
  const endMs = performance.now() + END_TIMEOUT_MS;
  for (;;) {
    const status = await statusOf(qmp);
    if (ENDED.includes(status)) return status;
    if (performance.now() > endMs) {
      const text = `Source QEMU still migrates after ${END_TIMEOUT_MS} ms: it says "${status}"`;
      throw new PagelaneError('ERR_QMP', text);
    }
    await sleep(LOOK_MS);
  }
}

async function statusOf(qmp: QmpClient): Promise<string> {
  const { status } = (await qmp.execute('query-migrate')) as { readonly status?: string };
  return status ?? 'none';
}
