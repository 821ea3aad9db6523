import { createKeyFile } from '../index.ts';
import { UsageError } from './options.ts';
import { print } from './report.ts';

const HELP = `Usage: pagelane keygen FILE

Writes a new shared key to FILE, readable by its owner only. Copy it to the other host by a way
that you trust; both ends name it with --key.
`;

/** \`pagelane keygen FILE\`. */
export function keygen(args: readonly string[]): number {
  if (args.includes('--help')) {
    print(HELP);
    return 0;
  }
  const [path, ...rest] = args;
  if (path === undefined || rest.length > 0 || path.startsWith('-')) {
    throw new UsageError('keygen takes one FILE');
  }
  createKeyFile(path);
  process.stderr.write(`pagelane: wrote a new key to ${path}\n`);
  return 0;
}
