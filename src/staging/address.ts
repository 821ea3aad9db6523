import { parseRate } from '../units.ts';

/** An intermediary as it is written on a command line; it never holds a password. */
export interface IntermediaryAddress {
  /** As it was written: for messages. */
  readonly text: string;
  readonly at:
    | { readonly kind: 'tcp'; readonly host: string; readonly port: number }
    | { readonly kind: 'unix'; readonly path: string };
  readonly isEncrypted: boolean;
  /** The ACL user; Redis's `default` if absent. */
  readonly user?: string;
  /** The file that holds the password, and nothing else but a line's end. */
  readonly passwordFile?: string;
  /** The certificate authority, and this side's certificate and key, as PEM files. */
  readonly caFile?: string;
  readonly certificateFile?: string;
  readonly keyFile?: string;
  /** Most bytes a second to and from it; no limit if absent. */
  readonly maxBytesPerSecond?: number;
}

/* Fixed by Redis */
const PORT = 6379;

const FILE_OPTIONS = {
  'password-file': 'passwordFile',
  ca: 'caFile',
  cert: 'certificateFile',
  key: 'keyFile',
} as const;

/**
 * Reads an intermediary: `redis://[USER@]HOST[:PORT]`, `rediss://` for TLS, `redis+unix:/PATH`;
 * after any of them options, such as
 * `?max=400mbit&password-file=/etc/pagelane/redis&ca=/etc/ssl/ca.pem&cert=…&key=…`.
 *
 * @throws {SyntaxError} If it is none of them, holds a password, or has an option there is not.
 */
export function parseIntermediary(text: string): IntermediaryAddress {
  const [where = '', query = ''] = split(text, '?');
  const options = parseOptions(text, query);
  const unix = /^redis\+unix:(\/.+)$/.exec(where);
  if (unix !== null) {
    return { text, at: { kind: 'unix', path: unix[1]! }, isEncrypted: false, ...options };
  }
  const match = /^(rediss?):\/\/(?:([^@/]*)@)?(\[[0-9a-fA-F:.%]+\]|[^:/@[\]]+)(?::(\d{1,5}))?\/?$/;
  const found = match.exec(where);
  const port = found?.[4] === undefined ? PORT : Number(found[4]);
  if (found === null || port < 1 || port > 65_535) throw notAnAddress(where);
  const user = found[2];
  if (user?.includes(':')) {
    throw new SyntaxError(
      'Cannot read intermediary: a password on a command line can be read by everybody; ' +
        'use ?password-file=FILE or PAGELANE_REDIS_PASSWORD',
    );
  }
  return {
    text,
    at: { kind: 'tcp', host: found[3]!.replace(/^\[(.*)\]$/, '$1'), port },
    isEncrypted: found[1] === 'rediss',
    ...(user !== undefined && user !== '' && { user: decodeURIComponent(user) }),
    ...options,
  };
}

/** What was written is not repeated: it might hold a password. */
function notAnAddress(where: string): SyntaxError {
  const shown = where.includes('@') ? where.slice(where.lastIndexOf('@') + 1) : where;
  return new SyntaxError(
    `Cannot read intermediary "${shown}": expected redis://[USER@]HOST[:PORT], rediss://…, ` +
      'or redis+unix:/PATH',
  );
}

function split(text: string, mark: string): [string, string?] {
  const at = text.indexOf(mark);
  return at < 0 ? [text] : [text.slice(0, at), text.slice(at + 1)];
}

function parseOptions(text: string, query: string): Partial<IntermediaryAddress> {
  const options: { -readonly [Key in keyof IntermediaryAddress]?: IntermediaryAddress[Key] } = {};
  for (const part of query === '' ? [] : query.split('&')) {
    const [name, value = ''] = split(part, '=');
    if (name === 'max') {
      options.maxBytesPerSecond = parseRate(value);
    } else if (name in FILE_OPTIONS && value !== '') {
      options[FILE_OPTIONS[name as keyof typeof FILE_OPTIONS]] = decodeURIComponent(value);
    } else {
      const known = ['max', ...Object.keys(FILE_OPTIONS)].join(', ');
      throw new SyntaxError(
        `Cannot read intermediary "${split(text, '?')[0]}": option "${name}", expected ${known}`,
      );
    }
  }
  return options;
}
