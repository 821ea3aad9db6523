import {
  askSession,
  type ControlledSession,
  type ControlRequest,
  ControlServer,
  codeOf,
  type FoundSession,
  findSession,
  findSessions,
  type MigrationStream,
  messageOf,
  type SessionReport,
  type Side,
} from '../index.ts';
import { type Flags, readArguments, UsageError, type Values } from './options.ts';
import { print, type Reporter } from './report.ts';
import { formatPaths, ID_DIGITS_SHOWN } from './table.ts';

/*
 * What "pagelane ls", "path" and "set" have in common, and the other end of it in "send" and
 * "receive".
 */

/** Flags of the commands that look at migrations that run, or change them. */
export const CONTROL_FLAGS: Flags = {
  output: { type: 'string', value: 'text|json', help: 'form of what goes to stdout' },
  help: { type: 'boolean', help: 'this text' },
};

/** The same where one end of one session is meant. */
export const SESSION_FLAGS: Flags = {
  side: {
    type: 'string',
    value: 'source|destination',
    help: 'which end, if both run on this host; default: the source',
  },
  ...CONTROL_FLAGS,
};

/** How data is written. */
export type ControlOutput = 'text' | 'json' | 'ndjson';

/** Arguments of such a command. */
export interface ControlArguments {
  readonly values: Values;
  readonly positionals: readonly string[];
  readonly output: ControlOutput;
  /** The end that was asked for. */
  readonly side: Side | undefined;
}

/**
 * Reads the arguments of such a command. Its flags have no environment variables, but for the
 * output: those of `send` that are called the same are not meant.
 *
 * @throws {UsageError} If a flag is unknown, or has a wrong value.
 */
export function readControlArguments(args: readonly string[], flags: Flags): ControlArguments {
  const environment = { PAGELANE_OUTPUT: process.env['PAGELANE_OUTPUT'] };
  const { values, positionals } = readArguments(args, flags, environment);
  const output = values.text('output') ?? 'text';
  if (output !== 'text' && output !== 'json' && output !== 'ndjson') {
    throw new UsageError(`--output: "${output}" is none of text, json, ndjson`);
  }
  const side = values.text('side');
  if (side !== undefined && side !== 'source' && side !== 'destination') {
    throw new UsageError(`--side: "${side}" is none of source, destination`);
  }
  return { values, positionals, output, side };
}

/**
 * Does something to a session, and writes how its paths are then.
 *
 * @param text The session, as `findSession` reads it.
 * @param decide What to ask of its process.
 * @returns The exit code.
 */
export function runOnSession(
  text: string,
  { output, side }: ControlArguments,
  decide: (report: SessionReport) => ControlRequest,
): Promise<number> {
  return reportingErrors(output, async () => {
    const found = findSession(text, await findSessions(process.env), { side });
    const request = decide(found.report);
    const report = await asked(found, request);
    if (output === 'text') print(formatPaths(report));
    else printRecord(output, { type: 'session', ...report });
    return 0;
  });
}

/** What was found out on the way to a session is not asked for again. */
function asked({ socket, report }: FoundSession, request: ControlRequest): Promise<SessionReport> {
  return request.verb === 'report' ? Promise.resolve(report) : askSession(socket, request);
}

/** Runs a command, and writes what it throws for programs as well; `main` tells people. */
export async function reportingErrors(
  output: ControlOutput,
  run: () => Promise<number>,
): Promise<number> {
  try {
    return await run();
  } catch (error) {
    if (output !== 'text' && !(error instanceof UsageError)) {
      const { code, message } = { code: codeOf(error), message: messageOf(error) };
      printRecord(output, { type: 'error', error: { code, message } });
    }
    throw error;
  }
}

/** Writes a record to stdout: `ndjson` as a line, `json` for people to read as well. */
export function printRecord(output: 'json' | 'ndjson', record: Record<string, unknown>): void {
  const indent = output === 'json' ? 2 : undefined;
  print(`${JSON.stringify({ v: 1, ...record }, undefined, indent)}\n`);
}

/**
 * Lets this user look at a migration and change it from other processes.
 *
 * @returns Undefined if that cannot be; a warning says why, and the migration goes on without.
 */
export async function startControl(
  session: ControlledSession,
  migration: MigrationStream,
  { name, side, reporter }: { name: string; side: Side; reporter: Reporter },
): Promise<ControlServer | undefined> {
  const state = () => {
    const { phase, elapsedMs } = migration.progress();
    return { name, side, phase, elapsedMs };
  };
  try {
    const server = await ControlServer.listen({
      session,
      state,
      setStageBandwidth: (bytesPerSecond, intermediary) =>
        migration.setStageBandwidth(bytesPerSecond, intermediary),
    });
    reporter.say(`control: pagelane path ls ${session.id.slice(0, ID_DIGITS_SHOWN)}`);
    return server;
  } catch (error) {
    reporter.warn(`no "pagelane path" and "set" for this migration: ${messageOf(error)}`);
    return undefined;
  }
}
