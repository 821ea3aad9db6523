import { findPath } from '../index.ts';
import { readControlArguments, runOnSession, SESSION_FLAGS } from './control.ts';
import { type Flags, formatControlHelp, readMaxBandwidth, UsageError } from './options.ts';
import { print } from './report.ts';

const FLAGS: Flags = {
  'max-bandwidth': {
    type: 'string',
    value: 'RATE|off',
    help: 'most that this end sends: 200mbit, 125MB; off: no limit',
  },
  path: {
    type: 'string',
    value: 'PATH',
    help: 'on this path; by its id or one of its addresses; default: on all together',
  },
  ...SESSION_FLAGS,
};

const USAGE = 'pagelane set SESSION --max-bandwidth RATE|off [--path PATH] [options]';
const EXAMPLES = [
  'pagelane set vm1 --max-bandwidth 500mbit',
  'pagelane set vm1 --max-bandwidth off --path 1',
];

/** `pagelane set`: changes the limits of a migration that runs. */
export function set(args: readonly string[]): Promise<number> {
  const read = readControlArguments(args, FLAGS);
  const { values, positionals } = read;
  if (values.is('help')) {
    print(formatControlHelp(USAGE, EXAMPLES, FLAGS));
    return Promise.resolve(0);
  }
  const [session, extra] = positionals;
  if (session === undefined || extra !== undefined) throw new UsageError('set takes one SESSION');
  if (values.text('max-bandwidth') === undefined) {
    throw new UsageError('give --max-bandwidth RATE|off');
  }
  const bytesPerSecond = readMaxBandwidth(values);
  const text = values.text('path');
  return runOnSession(session, read, ({ paths }) => ({
    verb: 'setMaxBandwidth',
    bytesPerSecond,
    path: text === undefined ? undefined : findPath(text, paths).id,
  }));
}
