import { chmodSync, lstatSync, mkdirSync, readdirSync, type Stats } from 'node:fs';
import { tmpdir } from 'node:os';
import { isAbsolute, join, resolve } from 'node:path';
import { codeOf, messageOf, PagelaneError, type Side } from '../errors.ts';
import { SOCKET_PATH_BYTES_MAX } from './limits.ts';

/*
 * Where control sockets are. Whoever may open a socket may change a migration, so nobody but its
 * owner may enter the directory: that holds from before the socket is there, whatever the umask.
 */

const OWNER_MODE = 0o700;
const OTHERS_MODE = 0o077;
const SOCKET_NAME = /^[0-9a-f]{32}-(?:source|destination)\.sock$/;

/**
 * Where control sockets may be, the place of new ones first.
 *
 * `PAGELANE_CONTROL_DIR` alone, if it is set. Otherwise `pagelane` under `XDG_RUNTIME_DIR`, if that
 * is set, and `pagelane-<uid>` under the system's folder for temporary files: a process that a
 * service started knows only the latter.
 */
export function controlDirectories(environment: NodeJS.ProcessEnv): readonly string[] {
  const chosen = environment['PAGELANE_CONTROL_DIR'] ?? '';
  if (chosen !== '') return [resolve(chosen)];
  const temporary = join(tmpdir(), `pagelane-${process.getuid!()}`);
  const runtime = environment['XDG_RUNTIME_DIR'] ?? '';
  return isAbsolute(runtime) ? [join(runtime, 'pagelane'), temporary] : [temporary];
}

/**
 * Makes the directory for control sockets, unless it is there.
 *
 * @throws {PagelaneError} ERR_CONTROL_DIR If it cannot be made, or others than its owner, who is
 *   this process's user, may enter it.
 */
export function makeControlDirectory(directory: string): void {
  try {
    mkdirSync(directory, { mode: OWNER_MODE });
    // The umask may have taken rights away from the owner as well.
    chmodSync(directory, OWNER_MODE);
  } catch (error) {
    if (codeOf(error) !== 'EEXIST') throw directoryError(directory, messageOf(error), error);
  }
  if (!isOwnDirectory(directory)) throw directoryError(directory, 'it is gone again');
}

/**
 * Whether there is a directory for control sockets, and nobody else may enter it.
 *
 * @returns False if there is nothing.
 * @throws {PagelaneError} ERR_CONTROL_DIR If there is something else.
 */
export function isOwnDirectory(directory: string): boolean {
  const stats = statsOf(directory);
  if (stats === undefined) return false;
  if (!stats.isDirectory()) throw directoryError(directory, 'it is no directory');
  const owner = process.getuid!();
  if (stats.uid !== owner) {
    throw directoryError(directory, `it belongs to user ${stats.uid}, not to ${owner}`);
  }
  if ((stats.mode & OTHERS_MODE) !== 0) {
    const mode = (stats.mode & 0o777).toString(8);
    throw directoryError(directory, `others may enter it: its mode is ${mode}, not 700`);
  }
  return true;
}

/**
 * Where the control socket of one end of a session is.
 *
 * @throws {PagelaneError} ERR_CONTROL_DIR If the path would be too long for a socket.
 */
export function controlSocketPath(directory: string, id: string, side: Side): string {
  const path = join(directory, `${id}-${side}.sock`);
  const bytes = Buffer.byteLength(path);
  if (bytes > SOCKET_PATH_BYTES_MAX) {
    const why = `a socket's path has at most ${SOCKET_PATH_BYTES_MAX} bytes, not ${bytes}`;
    throw directoryError(directory, why);
  }
  return path;
}

/**
 * Every control socket there is, in use or not.
 *
 * A directory that others may enter is passed over, as long as another can be used: anybody can
 * make one under the system's folder for temporary files.
 *
 * @throws {PagelaneError} ERR_CONTROL_DIR If no directory can be used, and one is unsafe.
 */
export function controlSockets(environment: NodeJS.ProcessEnv): readonly string[] {
  const sockets: string[] = [];
  let failure: unknown;
  let isUsable = false;
  for (const directory of controlDirectories(environment)) {
    try {
      if (!isOwnDirectory(directory)) continue;
      sockets.push(...socketsIn(directory));
      isUsable = true;
    } catch (error) {
      failure ??= error;
    }
  }
  if (failure !== undefined && !isUsable) throw failure;
  return sockets;
}

function socketsIn(directory: string): string[] {
  try {
    const names = readdirSync(directory).filter((name) => SOCKET_NAME.test(name));
    return names.sort().map((name) => join(directory, name));
  } catch (error) {
    throw directoryError(directory, messageOf(error), error);
  }
}

/** What is known of a directory itself: a link is not followed. */
function statsOf(directory: string): Stats | undefined {
  try {
    return lstatSync(directory, { throwIfNoEntry: false });
  } catch (error) {
    throw directoryError(directory, messageOf(error), error);
  }
}

function directoryError(directory: string, why: string, cause?: unknown): PagelaneError {
  const message = `Cannot use "${directory}" for control sockets: ${why}`;
  return new PagelaneError('ERR_CONTROL_DIR', message, { cause });
}
