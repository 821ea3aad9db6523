import { PagelaneError, type Side } from '../errors.ts';
import type { Phase } from '../migration/progress.ts';
import type { PathReport, PathState } from '../path/path.ts';
import { Fields, type FieldsOptions } from './fields.ts';
import { CONTROL_VERSION } from './limits.ts';

/*
 * An answer is one line of JSON: how the session is once the request is done, or why it was not
 * done.
 *
 *   {"v":1,"session":{"id":"…","name":"vm1","side":"source","phase":"precopy","paths":[…],…}}
 *   {"v":1,"error":{"code":"ERR_CONTROL_PATH","message":"…"}}
 */

/** What one end of a session does. */
export interface SessionState {
  /** Name of the machine; empty if it has none. */
  readonly name: string;
  readonly side: Side;
  readonly phase: Phase;
  readonly elapsedMs: number;
}

/** One end of a session, as its process tells of it. */
export interface SessionReport extends SessionState {
  /** 32 hexadecimal digits, the same at both ends. */
  readonly id: string;
  /** Every path there is, and the latest of those there were. */
  readonly paths: readonly PathReport[];
}

const OPTIONS: FieldsOptions = { what: 'answer', code: 'ERR_CONTROL_ANSWER' };
const SIDES: readonly Side[] = ['source', 'destination'];
const PHASES: readonly Phase[] = ['setup', 'precopy', 'switchover', 'postcopy', 'done'];
const STATES: readonly PathState[] = ['open', 'lost', 'closed'];

/** Writes the answer to a request that was done. */
export function encodeReport(session: SessionReport): string {
  return `${JSON.stringify({ v: CONTROL_VERSION, session })}\n`;
}

/** Writes the answer to a request that was not done. */
export function encodeError({ code, message }: PagelaneError): string {
  return `${JSON.stringify({ v: CONTROL_VERSION, error: { code, message } })}\n`;
}

/**
 * Reads an answer.
 *
 * @param line Without its end.
 * @throws {PagelaneError} With the code in the answer, if the request was not done.
 * @throws {PagelaneError} ERR_CONTROL_ANSWER If it is no answer.
 */
export function parseAnswer(line: string): SessionReport {
  const fields = Fields.parse(line, OPTIONS);
  fields.version(CONTROL_VERSION);
  const error = fields.optional('error', () => fields.object('error'));
  if (error !== undefined) throw readError(error);
  return readSession(fields.object('session'));
}

function readError(fields: Fields): PagelaneError {
  const code = fields.text('code');
  const isCode = /^ERR_[A-Z0-9_]{1,60}$/.test(code);
  return new PagelaneError(isCode ? code : OPTIONS.code, fields.text('message'));
}

function readSession(fields: Fields): SessionReport {
  const id = fields.text('id');
  if (!/^[0-9a-f]{32}$/.test(id)) {
    throw new PagelaneError(OPTIONS.code, 'Cannot read answer: "id" is no id of a session');
  }
  return {
    id,
    name: fields.text('name'),
    side: fields.choice('side', SIDES),
    phase: fields.choice('phase', PHASES),
    elapsedMs: fields.amount('elapsedMs'),
    paths: fields.objects('paths').map(readPath),
  };
}

function readPath(fields: Fields): PathReport {
  return {
    id: fields.whole('id'),
    local: fields.text('local'),
    remote: fields.text('remote'),
    state: fields.choice('state', STATES),
    isParked: fields.boolean('isParked'),
    sentBytes: fields.amount('sentBytes'),
    receivedBytes: fields.amount('receivedBytes'),
    rttMs: fields.amount('rttMs'),
    bytesPerSecond: fields.amount('bytesPerSecond'),
    maxBytesPerSecond: fields.optional('maxBytesPerSecond', () =>
      fields.amount('maxBytesPerSecond'),
    ),
    unackedBytes: fields.amount('unackedBytes'),
  };
}
