import { PagelaneError, type Side } from '../errors.ts';
import type { PathReport } from '../path/path.ts';
import type { FoundSession, FoundSessions } from './client.ts';
import { ID_DIGITS_MIN } from './limits.ts';

/**
 * Finds the session that somebody means.
 *
 * @param text Its id, the first digits of that, at least 4, or the name of its machine.
 * @param options.side The end that is meant. @default the source, where both ends run on this host
 * @throws {PagelaneError} ERR_CONTROL_SESSION If there is none, or more than one.
 */
export function findSession(
  text: string,
  { sessions, failures }: FoundSessions,
  { side }: { side?: Side | undefined } = {},
): FoundSession {
  const meant = sessions.filter(({ report }) => isMeant(text, report));
  const exact = meant.filter(({ report }) => report.id === text.toLowerCase());
  const ends = exact.length > 0 ? exact : meant;
  if (new Set(ends.map(({ report }) => report.id)).size > 1) {
    throw sessionError(`"${text}" is more than one session: ${listSessions(ends)}`);
  }
  const order: readonly Side[] = side === undefined ? ['source', 'destination'] : [side];
  const found = order.flatMap((each) => ends.filter(({ report }) => report.side === each))[0];
  if (found !== undefined) return found;
  if (ends.length > 0) throw sessionError(`The ${side} of session "${text}" is not on this host`);
  const silent = failures.length === 0 ? '' : `; ${failures.length} could not be asked`;
  throw sessionError(`No process on this host has a session "${text}"${silent}`);
}

function isMeant(text: string, { id, name }: { id: string; name: string }): boolean {
  if (text.length >= ID_DIGITS_MIN && id.startsWith(text.toLowerCase())) return true;
  return name !== '' && name === text;
}

function listSessions(ends: readonly FoundSession[]): string {
  return ends.map(({ report }) => `${report.id} (${report.side})`).join(', ');
}

function sessionError(message: string): PagelaneError {
  return new PagelaneError('ERR_CONTROL_SESSION', message);
}

/**
 * Finds the path that somebody means, among those that are open.
 *
 * @param text Its id, or its local or remote address, with or without the port.
 * @throws {PagelaneError} ERR_CONTROL_PATH If there is none, or more than one.
 */
export function findPath(text: string, paths: readonly PathReport[]): PathReport {
  const open = paths.filter(({ state }) => state === 'open');
  const meant = /^\d+$/.test(text)
    ? open.filter(({ id }) => id === Number(text))
    : open.filter(({ local, remote }) => [local, remote].some((each) => isAddress(text, each)));
  const [found, second] = meant;
  if (second !== undefined) {
    const ids = meant.map(({ id }) => id).join(', ');
    throw pathError(`"${text}" is the address of paths ${ids}: give an id`);
  }
  if (found !== undefined) return found;
  const ids = open.map(({ id }) => id).join(', ');
  throw pathError(`No path "${text}" is open; those that are: ${ids === '' ? 'none' : ids}`);
}

/** Whether `text` is `address`, which has a port, or the host in it. */
function isAddress(text: string, address: string): boolean {
  const host = address.slice(0, address.lastIndexOf(':'));
  return text === address || text === host || `[${text}]` === host;
}

function pathError(message: string): PagelaneError {
  return new PagelaneError('ERR_CONTROL_PATH', message);
}
