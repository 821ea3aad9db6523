import { findPath } from '../index.ts';
import { readControlArguments, runOnSession, SESSION_FLAGS } from './control.ts';
import {
  type Flags,
  formatControlHelp,
  readMaxBandwidth,
  UsageError,
  type Values,
} from './options.ts';
import { print } from './report.ts';
import { readStageBandwidth } from './stage.ts';

const FLAGS: Flags = {
  'max-bandwidth': {
    type: 'string',
    value: 'RATE|off',
    help: 'most that this end sends: 200mbit, 125MB; off: no limit',
  },
  'stage-bandwidth': {
    type: 'string',
    value: 'RATE|off',
    help: 'most that this end puts into intermediaries, or gathers ahead',
  },
  intermediary: {
    type: 'string',
    value: 'N',
    help: 'for --stage-bandwidth: at the N-th of them, from 0; default: all together',
  },
  path: {
    type: 'string',
    value: 'PATH',
    help: 'on this path; by its id or one of its addresses; default: on all together',
  },
  ...SESSION_FLAGS,
};

const USAGE = 'pagelane set SESSION --max-bandwidth|--stage-bandwidth RATE|off [options]';
const EXAMPLES = [
  'pagelane set vm1 --max-bandwidth 500mbit',
  'pagelane set vm1 --max-bandwidth off --path 1',
  'pagelane set vm1 --stage-bandwidth 200mbit --intermediary 0',
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
  const isOfStage = values.text('stage-bandwidth') !== undefined;
  if (isOfStage === (values.text('max-bandwidth') !== undefined)) {
    throw new UsageError('give --max-bandwidth RATE|off, or --stage-bandwidth RATE|off');
  }
  if (isOfStage) {
    const { maxBytesPerSecond } = readStageBandwidth(values);
    const intermediary = readIntermediary(values);
    return runOnSession(session, read, () => ({
      verb: 'setStageBandwidth',
      bytesPerSecond: maxBytesPerSecond,
      intermediary,
    }));
  }
  const bytesPerSecond = readMaxBandwidth(values);
  const text = values.text('path');
  return runOnSession(session, read, ({ paths }) => ({
    verb: 'setMaxBandwidth',
    bytesPerSecond,
    path: text === undefined ? undefined : findPath(text, paths).id,
  }));
}

function readIntermediary(values: Values): number | undefined {
  const text = values.text('intermediary');
  if (text === undefined || /^\d{1,2}$/.test(text))
    return text === undefined ? undefined : Number(text);
  throw new UsageError(`--intermediary: "${text}" is no place among them, from 0`);
}
