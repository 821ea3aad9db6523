import { closeIntermediaries, openIntermediaries, removeStaged, stagedAttempts } from '../index.ts';
import { type Flags, formatControlHelp, readArguments, UsageError } from './options.ts';
import { print } from './report.ts';
import { readAddresses, STAGE_FLAGS } from './stage.ts';

const FLAGS: Flags = {
  stage: STAGE_FLAGS['stage']!,
  output: { type: 'string', value: 'text|json', help: 'form of the result on stdout' },
  help: { type: 'boolean', help: 'this text' },
};

const USAGE = 'pagelane staging ls|rm [ATTEMPT] --stage URL[,URL…]';
const EXAMPLES = [
  'pagelane staging ls --stage redis://r1,redis://r2',
  'pagelane staging rm 6f2a… --stage redis://r1,redis://r2        what nobody will gather any more',
];
const EXIT_CODES = '0 done · 1 not done · 2 usage';

/** `pagelane staging`: what is at intermediaries. */
export async function staging(args: readonly string[]): Promise<number> {
  const { values, positionals } = readArguments(args, FLAGS, process.env);
  if (values.is('help')) {
    print(formatControlHelp(USAGE, EXAMPLES, FLAGS, EXIT_CODES));
    return 0;
  }
  const [verb, attempt, ...rest] = positionals;
  const isKnown = verb === 'ls' ? attempt === undefined : verb === 'rm' && attempt !== undefined;
  if (!isKnown || rest.length > 0) throw new UsageError('give "ls", or "rm" and an attempt');
  const addresses = readAddresses(values);
  if (addresses.length === 0) throw new UsageError('give --stage URL');
  const intermediaries = await openIntermediaries(addresses);
  try {
    if (attempt !== undefined) {
      const removed = await removeStaged(intermediaries, attempt);
      print(`removed ${removed} keys\n`);
      return removed > 0 ? 0 : 1;
    }
    const attempts = await stagedAttempts(intermediaries);
    if (values.text('output') === 'json') print(`${JSON.stringify(attempts)}\n`);
    else for (const { name, keys } of attempts) print(`${name}  ${keys} keys\n`);
    return 0;
  } finally {
    await closeIntermediaries(intermediaries);
  }
}
