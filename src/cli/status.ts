import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import {
  codeOf,
  FileJournal,
  type GuestPlace,
  type JournalEntry,
  messageOf,
  ownerOf,
  PagelaneError,
} from '../index.ts';
import { CONTROL_FLAGS, printRecord, readControlArguments, reportingErrors } from './control.ts';
import { formatControlHelp, UsageError } from './options.ts';
import { print } from './report.ts';
import { printable } from './table.ts';

const USAGE = 'pagelane status FILE|DIRECTORY… [options]';
const EXAMPLES = [
  'pagelane status /var/lib/vmm/vm1.journal',
  'pagelane status vm1.here.journal vm1.there.journal',
  "pagelane status /var/lib/vmm --output json | jq '.journals[] | {name, guest}'",
];
const EXIT_CODES = '0 known · 1 not read · 2 usage · 6 not known: start neither copy';

/** What a directory's journals are called. */
const SUFFIX = '.journal';

/** Exit code when it is not known whose a guest is. */
const UNKNOWN = 6;

/** A journal that was read, or why it was not. */
interface Found {
  readonly path: string;
  readonly entry?: JournalEntry;
  readonly error?: { readonly code: string; readonly message: string };
}

/** `pagelane status`: whose a guest is, by the journals of its hand-over. */
export function status(args: readonly string[]): Promise<number> {
  const { values, positionals, output } = readControlArguments(args, CONTROL_FLAGS);
  if (values.is('help')) {
    print(formatControlHelp(USAGE, EXAMPLES, CONTROL_FLAGS, EXIT_CODES));
    return Promise.resolve(0);
  }
  if (positionals.length === 0) throw new UsageError('status takes a FILE or DIRECTORY');
  return reportingErrors(output, async () => {
    const paths = positionals.flatMap(journalsAt);
    const found: Found[] = [];
    for (const path of paths) found.push(await readAt(path));
    const entries = found.flatMap(({ entry }) => (entry === undefined ? [] : [entry]));
    const journals = found.map((each) => reportOn(each, entries));
    if (output === 'text') print(journals.map(lineOf).join(''));
    else printRecord(output, { type: 'journals', journals });
    return journals.some(({ guest }) => guest === 'unknown') ? UNKNOWN : 0;
  });
}

/** The journals that a path stands for. */
function journalsAt(path: string): readonly string[] {
  try {
    if (!statSync(path).isDirectory()) return [path];
    const names = readdirSync(path).filter((name) => name.endsWith(SUFFIX));
    if (names.length === 0) throw new Error(`it has no file *${SUFFIX}`);
    return names.sort().map((name) => join(path, name));
  } catch (cause) {
    const message = `Cannot look at "${path}": ${messageOf(cause)}`;
    throw new PagelaneError('ERR_JOURNAL', message, { cause });
  }
}

/** One that is damaged keeps nobody from seeing the others. */
async function readAt(path: string): Promise<Found> {
  try {
    const entry = await new FileJournal(path).read();
    if (entry !== undefined) return { path, entry };
    throw new PagelaneError('ERR_JOURNAL', `Cannot read journal "${path}": it is gone`);
  } catch (error) {
    return { path, error: { code: codeOf(error), message: messageOf(error) } };
  }
}

type Report = Readonly<Record<string, unknown>> & {
  readonly path: string;
  readonly guest: GuestPlace;
  readonly text: string;
};

function reportOn({ path, entry, error }: Found, entries: readonly JournalEntry[]): Report {
  if (entry === undefined) {
    return { path, guest: 'unknown', text: error!.message, error };
  }
  const { name, side, state, migration, attempt, isSettled, context } = entry;
  const { guest, text } = ownerOf(entry, entries);
  return { path, name, side, state, migration, attempt, isSettled, context, guest, text };
}

function lineOf({ path, name, side, state, text }: Report): string {
  const whose = name === undefined || name === '' ? path : String(name);
  const where = side === undefined ? '' : ` (${String(side)}, ${String(state)})`;
  return `${printable(`${whose}${where}: ${text}`)}\n`;
}
