/* Fixed by Linux: processors have numbers below this (arch/x86/Kconfig, NR_CPUS_RANGE_END) */
const PROCESSORS_MAX = 8192;

/**
 * Reads a list of processors, such as `0-3,8`.
 *
 * @returns Their numbers, ascending, each once; at least one, all below 8192.
 * @throws {SyntaxError} If the text is no such list.
 *
 * Source: Linux, cpuset(7), "List format".
 */
export function parseCpuSet(text: string): number[] {
  const found = new Set<number>();
  for (const part of text.split(',')) {
    const range = /^(\d+)(?:-(\d+))?$/.exec(part.trim());
    if (range === null) throw wrong(text, `"${part}" is neither N nor N-M`);
    const first = Number(range[1]);
    const last = Number(range[2] ?? range[1]);
    if (first > last) throw wrong(text, `"${part}" ends before it begins`);
    if (last >= PROCESSORS_MAX) {
      throw wrong(text, `a processor's number must be below ${PROCESSORS_MAX}`);
    }
    for (let processor = first; processor <= last; processor++) found.add(processor);
  }
  return [...found].sort((a, b) => a - b);
}

function wrong(text: string, why: string): SyntaxError {
  return new SyntaxError(`Cannot read processors "${text}": expected a list as 0-3,8: ${why}`);
}

/**
 * Writes processors as the shortest list that `parseCpuSet` reads: `0-3,8`.
 *
 * @param processors Their numbers, in any order.
 */
export function formatCpuSet(processors: readonly number[]): string {
  const sorted = [...new Set(processors)].sort((a, b) => a - b);
  const ranges: { first: number; last: number }[] = [];
  for (const processor of sorted) {
    const range = ranges.at(-1);
    if (range?.last === processor - 1) range.last = processor;
    else ranges.push({ first: processor, last: processor });
  }
  return ranges
    .map(({ first, last }) => (first === last ? `${first}` : `${first}-${last}`))
    .join(',');
}
