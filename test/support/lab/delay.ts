import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { labFolder, repositoryRoot } from './binaries.ts';
import { type RunningProcess, startProcess, waitUntil } from './processes.ts';

/* Chosen by us */
const START_TIMEOUT_MS = 5_000;
/** What a direction may have under way: more than any path of the lab carries in its delay. */
const QUEUE_BYTES_MAX = 64 * 1024 * 1024;

/** A wire between two namespaces that takes time. */
export interface DelayedWire {
  /** Name of the device, the same in both namespaces. */
  readonly device: string;
  readonly source: string;
  readonly destination: string;
  /** One way, in each direction; milliseconds. */
  readonly delayMs: number;
}

/**
 * Starts a wire (`delay.c`): a device in each namespace, with what one sends arriving at the other
 * `delayMs` later. Both devices are down at first, and vanish with the process.
 *
 * The kernel here has no `netem`. This delays packets and not bytes of a relayed connection, so
 * that TCP's own round trips take the time too.
 */
export async function startDelay(wire: DelayedWire): Promise<RunningProcess> {
  const { device, source, destination, delayMs } = wire;
  const times = [`${Math.round(delayMs * 1000)}`, `${QUEUE_BYTES_MAX}`];
  const started = startProcess([delayProgram(), device, source, destination, ...times]);
  try {
    const isReady = (): boolean => {
      if (!started.isRunning()) throw new Error(started.stderr().trim());
      return started.stdout().includes('ready');
    };
    await waitUntil('the delayed wire', isReady, { timeoutMs: START_TIMEOUT_MS });
    return started;
  } catch (error) {
    await started.stop();
    throw error;
  }
}

/** The compiled program, named after its source as the lab's other artifacts. */
function delayProgram(): string {
  const source = join(repositoryRoot, 'test/support/lab/delay.c');
  const hash = createHash('sha256').update(readFileSync(source)).digest('hex').slice(0, 12);
  const program = join(labFolder(), `delay-${hash}`);
  if (existsSync(program)) return program;
  mkdirSync(labFolder(), { recursive: true });
  const temporary = `${program}.${process.pid}.tmp`;
  execFileSync('gcc', ['-O2', '-Wall', '-Wextra', '-Werror', '-o', temporary, source]);
  renameSync(temporary, program);
  return program;
}
