import type { Socket } from 'node:net';
import { type Clock, systemClock } from '../clock.ts';
import { asPagelaneError, PagelaneError } from '../errors.ts';
import { dialControl } from './dial.ts';
import { controlSockets } from './directory.ts';
import { ANSWER_BYTES_MAX, ASKED_MAX, CHANGE_TIMEOUT_MS, LINE_TIMEOUT_MS } from './limits.ts';
import { readLine } from './line.ts';
import { parseAnswer, type SessionReport } from './report.ts';
import { type ControlRequest, encodeRequest } from './request.ts';

/** A session with a process on this host, and where that listens. */
export interface FoundSession {
  readonly socket: string;
  readonly report: SessionReport;
}

/** The sessions of this user whose processes run on this host. */
export interface FoundSessions {
  readonly sessions: readonly FoundSession[];
  /** Why processes that listen did not tell about theirs. */
  readonly failures: readonly PagelaneError[];
}

/** For tests. */
export interface AskOptions {
  /** @default the machine's monotonic clock */
  readonly clock?: Clock;
}

/**
 * Asks every process of this user on this host for its session. Sockets that no process has any
 * more are removed.
 *
 * @throws {PagelaneError} ERR_CONTROL_DIR If others may enter the directory of the sockets.
 */
export async function findSessions(
  environment: NodeJS.ProcessEnv,
  options: AskOptions = {},
): Promise<FoundSessions> {
  const sessions: FoundSession[] = [];
  const failures: PagelaneError[] = [];
  const sockets = controlSockets(environment);
  const ask = async (socket: string): Promise<void> => {
    try {
      const report = await askIfThere(socket, { verb: 'report' }, options);
      if (report !== undefined) sessions.push({ socket, report });
    } catch (error) {
      failures.push(asPagelaneError(error));
    }
  };
  for (let begin = 0; begin < sockets.length; begin += ASKED_MAX) {
    await Promise.all(sockets.slice(begin, begin + ASKED_MAX).map(ask));
  }
  sessions.sort((one, other) => (one.socket < other.socket ? -1 : 1));
  return { sessions, failures };
}

/**
 * Asks a process for something.
 *
 * @param socket Where it listens.
 * @returns How its session is once that is done.
 * @throws {PagelaneError} ERR_CONTROL_CLOSED If the process is gone.
 * @throws {PagelaneError} ERR_CONTROL_TIMEOUT If it does not answer.
 * @throws {PagelaneError} ERR_CONTROL_ANSWER If what it says is no answer.
 * @throws {PagelaneError} With another code, if it says that this was not done.
 */
export async function askSession(
  socket: string,
  request: ControlRequest,
  options: AskOptions = {},
): Promise<SessionReport> {
  const report = await askIfThere(socket, request, options);
  if (report !== undefined) return report;
  throw new PagelaneError('ERR_CONTROL_CLOSED', `No process listens at ${socket} any more`);
}

async function askIfThere(
  path: string,
  request: ControlRequest,
  { clock = systemClock }: AskOptions,
): Promise<SessionReport | undefined> {
  const socket = await dialControl(path);
  if (socket === undefined) return undefined;
  try {
    return parseAnswer(await exchange(socket, path, request, clock));
  } finally {
    socket.destroy();
  }
}

function exchange(
  socket: Socket,
  path: string,
  request: ControlRequest,
  clock: Clock,
): Promise<string> {
  socket.write(encodeRequest(request));
  const isQuick = request.verb === 'report' || request.verb === 'setMaxBandwidth';
  return readLine(socket, {
    what: `an answer from ${path}`,
    bytesMax: ANSWER_BYTES_MAX,
    // The process itself knows best what it waits for, so it is given time to say so.
    timeoutMs: isQuick ? LINE_TIMEOUT_MS : LINE_TIMEOUT_MS + CHANGE_TIMEOUT_MS,
    code: 'ERR_CONTROL_ANSWER',
    clock,
  });
}
