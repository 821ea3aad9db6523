import { findSessions } from '../index.ts';
import { CONTROL_FLAGS, printRecord, readControlArguments, reportingErrors } from './control.ts';
import { formatControlHelp, UsageError } from './options.ts';
import { print } from './report.ts';
import { formatSessions, printable } from './table.ts';

const USAGE = 'pagelane ls [options]';
const EXAMPLES = ['pagelane ls', "pagelane ls --output json | jq -r '.sessions[].id'"];

/** `pagelane ls`: the sessions whose processes run on this host, as this user. */
export function ls(args: readonly string[]): Promise<number> {
  const { values, positionals, output } = readControlArguments(args, CONTROL_FLAGS);
  if (values.is('help')) {
    print(formatControlHelp(USAGE, EXAMPLES, CONTROL_FLAGS));
    return Promise.resolve(0);
  }
  if (positionals.length > 0) throw new UsageError(`unexpected "${positionals[0]}"`);
  return reportingErrors(output, async () => {
    const found = await findSessions(process.env);
    const sessions = found.sessions.map(({ report }) => report);
    for (const { message } of found.failures) say(`warning: ${message}`);
    if (output !== 'text') printRecord(output, { type: 'sessions', sessions });
    else if (sessions.length > 0) print(formatSessions(sessions));
    else say('no migration runs here, as this user');
    return 0;
  });
}

function say(text: string): void {
  process.stderr.write(`pagelane: ${printable(text)}\n`);
}
