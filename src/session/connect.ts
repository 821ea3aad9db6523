import type { PathAddress, PathSpec } from '../address.ts';
import { PathError, ProtocolError, RemoteError } from '../errors.ts';
import { PATHS_MAX } from '../frame/limits.ts';
import { Opener } from './opener.ts';
import { checkOptions, type SessionOptions } from './options.ts';
import type { Session } from './session.ts';

/*
 * Opening a session
 *
 *   1. dial    every path, at the same time
 *   2. open    the first connection that is up opens the session; if it fails, the next one does
 *   3. join    every other connection joins it
 *   4. find    further paths, with the addresses that the destination offers
 *
 * The promise resolves after 2. A path that fails later is an event, and tried again.
 */

/** What the side that dials chooses. */
export interface ConnectOptions extends SessionOptions {
  /** 1 to 16 paths. */
  readonly paths: readonly PathAddress[];
  /**
   * All paths that are wanted, where some have to be found with what the destination offers: in
   * networks, or from every interface. What `paths` opened and is not among them is closed when one
   * of them is open. @default those of `paths`
   */
  readonly find?: readonly PathSpec[];
  /** Whether the session is only wanted with every path. @default false */
  readonly requireAllPaths?: boolean;
  /** Bytes after which a path gets a new connection, and so new keys. @default 64 GiB */
  readonly rekeyBytes?: number;
}

/**
 * Opens a session.
 *
 * Resolves with the first path that is welcomed; the others join as they can, and one that fails is
 * an event. A path that is lost is opened again, for as long as the session lives. `signal` stops
 * paths from being opened; it does not end a session that is open.
 *
 * @throws {PathError} ERR_PATH_REFUSED, ERR_PATH_TIMEOUT, ERR_PATH_UNREACHABLE, ERR_PATH_NAME,
 * ERR_PATH_SECURITY … If no path could be opened: the most telling error of all of them.
 * @throws {RemoteError} If the listener refused, with its code.
 * @throws {ProtocolError} If something else than pagelane answers.
 * @throws {RangeError} If an option has a value that is not allowed.
 * @throws `signal.reason` If it is aborted.
 */
export async function connectSession(options: ConnectOptions): Promise<Session> {
  const checked = checkOptions(options);
  const { paths, find = [], signal, requireAllPaths = false, rekeyBytes } = options;
  if (paths.length < 1 || paths.length > PATHS_MAX) {
    throw new RangeError(`A session has 1 to ${PATHS_MAX} paths, not ${paths.length}`);
  }
  signal?.throwIfAborted();
  const opener = new Opener({ ...checked, find, rekeyBytes }, signal);
  const openings = paths.map((address) => opener.open(address));
  if (requireAllPaths) {
    try {
      await Promise.all(openings);
    } catch (error) {
      opener.abandon(error);
      await Promise.allSettled(openings);
      throw error;
    }
    return opener.session!;
  }
  const results = Promise.allSettled(openings);
  await Promise.race([opener.opened, results]);
  if (opener.session !== undefined) return opener.session;
  signal?.throwIfAborted();
  const errors = (await results).flatMap((one) => (one.status === 'rejected' ? [one.reason] : []));
  const error = mostTelling(errors);
  opener.abandon(error);
  throw error;
}

/** Codes of paths that could not be opened, the most telling first. */
const TELLING: readonly string[] = [
  'ERR_PATH_SECURITY',
  'ERR_PATH_REFUSED',
  'ERR_PATH_NAME',
  'ERR_PATH_UNREACHABLE',
  'ERR_PATH_FAILED',
  'ERR_PATH_LOST',
  'ERR_PATH_TIMEOUT',
];

/** The error that says most about why no path could be opened. */
export function mostTelling(errors: readonly unknown[]): unknown {
  const rank = (error: unknown): number => {
    if (error instanceof RemoteError) return -2;
    if (error instanceof ProtocolError) return -1;
    if (!(error instanceof PathError)) return -3;
    const index = TELLING.indexOf(error.code);
    return index < 0 ? TELLING.length : index;
  };
  return [...errors].sort((one, other) => rank(one) - rank(other))[0];
}
