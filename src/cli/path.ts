import { findPath, type PathAddress, parsePathSpec } from '../index.ts';
import {
  type ControlArguments,
  readControlArguments,
  runOnSession,
  SESSION_FLAGS,
} from './control.ts';
import { formatControlHelp, UsageError } from './options.ts';
import { print } from './report.ts';

const USAGE = [
  'pagelane path ls SESSION [options]',
  '       pagelane path add SESSION [LOCAL@]HOST:PORT[,max=RATE] [options]',
  '       pagelane path rm SESSION PATH [options]',
].join('\n');
const EXAMPLES = [
  'pagelane path ls vm1',
  'pagelane path add vm1 10.2.0.1@10.2.0.2:7700,max=200mbit',
  'pagelane path rm vm1 1                                     PATH: its id, or one of its addresses',
];

/** `pagelane path`: the paths of a migration that runs; to add one, and to remove one. */
export function path(args: readonly string[]): Promise<number> {
  const read = readControlArguments(args, SESSION_FLAGS);
  if (read.values.is('help')) {
    print(formatControlHelp(USAGE, EXAMPLES, SESSION_FLAGS));
    return Promise.resolve(0);
  }
  const [verb] = read.positionals;
  switch (verb) {
    case 'ls': {
      const [session] = takeWords(read, 'ls SESSION');
      return runOnSession(session!, read, () => ({ verb: 'report' }));
    }
    case 'add': {
      const [session, text] = takeWords(read, 'add SESSION [LOCAL@]HOST:PORT[,max=RATE]');
      const address = readOnePath(text!);
      return runOnSession(session!, read, () => ({ verb: 'addPath', address }));
    }
    case 'rm': {
      const [session, text] = takeWords(read, 'rm SESSION PATH');
      return runOnSession(session!, read, ({ paths }) => ({
        verb: 'removePath',
        path: findPath(text!, paths).id,
      }));
    }
    default: {
      const given = verb === undefined ? '' : `, not "${verb}"`;
      throw new UsageError(`path takes ls, add or rm${given}`);
    }
  }
}

/** The words after the verb, as many as `form` has. */
function takeWords({ positionals }: ControlArguments, form: string): readonly string[] {
  const words = positionals.slice(1);
  if (words.length === form.split(' ').length - 1) return words;
  throw new UsageError(`give pagelane path ${form}`);
}

function readOnePath(text: string): PathAddress {
  try {
    const spec = parsePathSpec(text);
    if (spec.kind === 'address') return spec.address;
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error));
  }
  throw new UsageError(`"${text}" may be several paths: give each as [LOCAL@]HOST:PORT`);
}
