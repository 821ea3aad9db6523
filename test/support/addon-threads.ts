import { readdirSync, readFileSync } from 'node:fs';

/** A worker thread of the addon, as the system sees it. */
export interface AddonThread {
  readonly name: string;
  /** Processors it may run on, as a list: `0-3,8`. */
  readonly cpus: string;
  readonly nice: number;
}

/** The worker threads of the addon in a process, by name. */
export function addonThreads(pid: number | 'self' = 'self'): AddonThread[] {
  return readdirSync(`/proc/${pid}/task`)
    .flatMap((id) => readThread(`/proc/${pid}/task/${id}`) ?? [])
    .filter(({ name }) => /^pagelane-\d+$/.test(name))
    .sort((a, b) => Number(a.name.slice(9)) - Number(b.name.slice(9)));
}

/** A thread that has ended meanwhile is none. */
function readThread(folder: string): AddonThread | undefined {
  try {
    const status = readFileSync(`${folder}/status`, 'utf8');
    const stat = readFileSync(`${folder}/stat`, 'utf8');
    return {
      name: /^Name:\t(.*)$/m.exec(status)![1]!,
      cpus: /^Cpus_allowed_list:\t(.*)$/m.exec(status)![1]!,
      // Field 19 of proc_pid_stat(5); the second may hold blanks and brackets.
      nice: Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[16]),
    };
  } catch {
    return undefined;
  }
}

/** `count` threads that run so, as `addonThreads` gives them. */
export function threadsLike(count: number, cpus: string, nice: number): AddonThread[] {
  return Array.from({ length: count }, (_, index) => ({ name: `pagelane-${index}`, cpus, nice }));
}

/** A command without the right to lower nice values, whoever runs it. */
export function withoutNiceRight(command: readonly string[]): string[] {
  const drop = process.getuid?.() === 0 ? ['setpriv', '--bounding-set', '-sys_nice'] : [];
  return ['prlimit', '--nice=0:0', ...drop, ...command];
}
