import { readdirSync, readFileSync } from 'node:fs';

/* What other work of this machine took, beside a measurement. */

const TICKS_PER_SECOND = 100; // the kernel's USER_HZ
const KERNEL_THREADS = 2; // the process that all of them descend from

interface Process {
  readonly parent: number;
  /** User and system, with those of its children that have ended. */
  readonly ticks: number;
}

/** Watches what others than this process, its descendants and the kernel take from now on. */
export class ForeignLoad {
  readonly #beganMs = performance.now();
  readonly #before = foreignTicks();

  /** Processors that others have taken since, on average. */
  processors(): number {
    const seconds = (performance.now() - this.#beganMs) / 1000;
    return Math.max(0, (foreignTicks() - this.#before) / TICKS_PER_SECOND / seconds);
  }
}

/** Of all processes that are others'; what has ended counts where its parent has noted it. */
function foreignTicks(): number {
  const processes = listProcesses();
  let ticks = 0;
  for (const [pid, process] of processes) {
    const isOurs = descendsFrom(processes, pid, [globalThis.process.pid, KERNEL_THREADS]);
    if (!isOurs) ticks += process.ticks;
  }
  return ticks;
}

function listProcesses(): ReadonlyMap<number, Process> {
  const processes = new Map<number, Process>();
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    const fields = statOf(name);
    if (fields === undefined) continue;
    processes.set(Number(name), { parent: Number(fields[1]), ticks: ticksOf(fields) });
  }
  return processes;
}

function statOf(pid: string): readonly string[] | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'latin1');
    return text.slice(text.lastIndexOf(')') + 2).split(' ');
  } catch {
    return undefined; // it has ended
  }
}

/** Behind the name are state, parent, and at 11 to 14 the times. */
function ticksOf(fields: readonly string[]): number {
  return fields.slice(11, 15).reduce((sum, field) => sum + Number(field), 0);
}

function descendsFrom(
  processes: ReadonlyMap<number, Process>,
  pid: number,
  ancestors: readonly number[],
): boolean {
  for (let at: number | undefined = pid; at !== undefined; at = processes.get(at)?.parent) {
    if (ancestors.includes(at)) return true;
  }
  return false;
}

/** User and system time of a process so far, and of its children that have ended; seconds. */
export function processSeconds(pid: number): number {
  return ticksOf(statOf(`${pid}`) ?? []) / TICKS_PER_SECOND;
}
