import type { PagelaneError } from '../errors.ts';
import type { ThreadsInUse } from '../page/threads.ts';
import type { PathReport } from '../path/path.ts';
import type { Session } from '../session/session.ts';
import { formatDigest } from '../stream/message.ts';
import type { MigrationResult, PathFacts, Progress, Tally } from './progress.ts';

/** How a migration ended, as the side that states it knows. */
export type MigrationEnd = Pick<
  MigrationResult,
  'side' | 'name' | 'outcome' | 'guest' | 'effective'
> & {
  readonly sent: bigint | undefined;
  readonly applied: bigint | undefined;
  readonly switchoverMs: number | undefined;
  readonly error?: PagelaneError;
};

/** What progress is made from. */
export interface ProgressParts {
  readonly session: Pick<Session, 'id' | 'pathReports'>;
  readonly tally: Tally;
  readonly elapsedMs: number;
  /** Bytes of a path that count at this side. */
  readonly wireBytesOf: (path: PathReport) => number;
}

/** What the result is made from beside. */
export interface ResultParts extends ProgressParts {
  readonly threads: ThreadsInUse;
}

/** Says where a migration stands. */
export function progressOf(
  { session, tally, elapsedMs, wireBytesOf }: ProgressParts,
  codec: string,
): Progress {
  const paths = session.pathReports();
  return {
    phase: tally.phase,
    elapsedMs,
    round: tally.round,
    memoryBytes: tally.memoryBytes,
    roundBytes: tally.roundBytes,
    pageBytes: tally.pageBytes,
    streamBytes: tally.streamBytes,
    wireBytes: paths.reduce((sum, path) => sum + wireBytesOf(path), 0),
    pages: { ...tally.pages },
    codecs: structuredClone(tally.codecs),
    codec,
    pathsOpen: paths.filter((path) => path.state === 'open').length,
    pathsAll: paths.length,
    waitsFor: tally.waitsFor,
  };
}

/** Makes the result record; the tally is done then. */
export function resultOf(end: MigrationEnd, parts: ResultParts): MigrationResult {
  const { session, tally, threads, elapsedMs, wireBytesOf } = parts;
  const { phase } = tally;
  if (end.outcome === 'completed') tally.phase = 'done';
  tally.waitsFor = undefined;
  const { sent, applied } = end;
  const paths = session.pathReports();
  return {
    v: 1,
    type: 'result',
    side: end.side,
    session: session.id,
    name: end.name,
    outcome: end.outcome,
    guest: end.guest,
    durationMs: Math.round(elapsedMs),
    downtimeMs: { switchover: end.switchoverMs },
    memoryBytes: tally.memoryBytes,
    streamBytes: tally.streamBytes,
    wireBytes: paths.reduce((sum, path) => sum + wireBytesOf(path), 0),
    pages: { ...tally.pages },
    codecs: structuredClone(tally.codecs),
    store: { bytes: tally.storeBytes, savedBytes: tally.savedBytes },
    resent: { ...tally.resent },
    paths: paths.map(
      (path): PathFacts => ({
        local: path.local,
        remote: path.remote,
        wireBytes: wireBytesOf(path),
        rttMs: path.rttMs,
        isLost: path.state === 'lost',
      }),
    ),
    rounds: tally.round,
    cpuSeconds: tally.cpuSeconds,
    digest: {
      sent: sent === undefined ? undefined : formatDigest(sent),
      applied: applied === undefined ? undefined : formatDigest(applied),
      equal: sent === undefined || applied === undefined ? undefined : sent === applied,
    },
    ...(tally.verified && { verified: tally.verified }),
    ...(tally.staged && { staged: tally.staged }),
    ...(tally.gathered && { gathered: tally.gathered }),
    ...(tally.preemptBytes !== undefined && { preemptBytes: tally.preemptBytes }),
    effective: { ...end.effective, ...threads },
    fallbacks: [...tally.fallbacks],
    ...(end.error && { error: { code: end.error.code, message: end.error.message, phase } }),
  };
}
