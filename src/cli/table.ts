import {
  formatBytes,
  formatDuration,
  formatRate,
  type PathReport,
  type SessionReport,
} from '../index.ts';

const NOTHING = '-';

/** Digits of a session's id that are shown. */
export const ID_DIGITS_SHOWN = 8;

/** The sessions that were found, a line each. */
export function formatSessions(sessions: readonly SessionReport[]): string {
  const rows = sessions.map(({ id, name, side, phase, elapsedMs, paths }) => {
    const open = paths.filter(({ state }) => state === 'open').length;
    return [
      id.slice(0, ID_DIGITS_SHOWN),
      name === '' ? NOTHING : name,
      side,
      phase,
      formatDuration(elapsedMs),
      `${open}/${paths.length}`,
    ];
  });
  return formatTable([['session', 'name', 'side', 'phase', 'time', 'paths'], ...rows]);
}

/** The paths of a session, a line each. The destination is told what it received. */
export function formatPaths({ side, paths }: SessionReport): string {
  const isSource = side === 'source';
  const head = ['id', 'state', 'local', 'remote', 'rate', 'rtt', isSource ? 'sent' : 'received'];
  const rows = paths.map((path) => [
    String(path.id),
    stateOf(path),
    path.local,
    path.remote,
    path.bytesPerSecond > 0 ? formatRate(path.bytesPerSecond) : NOTHING,
    path.rttMs > 0 ? `${path.rttMs.toFixed(1)} ms` : NOTHING,
    formatBytes(isSource ? path.sentBytes : path.receivedBytes),
    path.maxBytesPerSecond === undefined ? NOTHING : formatRate(path.maxBytesPerSecond),
  ]);
  return formatTable([[...head, 'cap'], ...rows]);
}

function stateOf({ state, isParked }: PathReport): string {
  return state === 'open' && isParked ? 'parked' : state;
}

/** Rows of cells, each column as wide as its widest cell. */
function formatTable(rows: readonly (readonly string[])[]): string {
  const shown = rows.map((row) => row.map(printable));
  const widths = (shown[0] ?? []).map((_, column) =>
    Math.max(...shown.map((row) => row[column]!.length)),
  );
  const lines = shown.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column]!))
      .join('  ')
      .trimEnd(),
  );
  return lines.map((line) => `${line}\n`).join('');
}

/** Text that a terminal only shows: names come from other hosts. */
export function printable(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\u2028\u2029]/gu, '?');
}
