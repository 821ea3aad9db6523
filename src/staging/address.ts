import { formatHostPort, parseHostPort } from '../address.ts';
import { parseRate } from '../units.ts';

/** An intermediary as it is written on a command line; it never holds a password. */
export interface IntermediaryAddress {
  /** As it was written: for messages. */
  readonly text: string;
  readonly at:
    | { readonly kind: 'tcp'; readonly host: string; readonly port: number }
    | { readonly kind: 'unix'; readonly path: string }
    | {
        readonly kind: 'sentinel';
        readonly sentinels: readonly { readonly host: string; readonly port: number }[];
        /** What the sentinels call the instance. */
        readonly name: string;
      }
    /** Any node of a Redis Cluster: it stands for all that hold slots. */
    | { readonly kind: 'cluster'; readonly host: string; readonly port: number };
  readonly isEncrypted: boolean;
  /** The slot of a Redis Cluster that all keys are to be in; any if absent. */
  readonly slot?: number;
  /** The ACL user; Redis's `default` if absent. */
  readonly user?: string;
  /** The file that holds the password, and nothing else but a line's end. */
  readonly passwordFile?: string;
  /** The certificate authority, and this side's certificate and key, as PEM files. */
  readonly caFile?: string;
  readonly certificateFile?: string;
  readonly keyFile?: string;
  /** A peer named it: it does not get this host's password. */
  readonly isForeign?: boolean;
  /** Most bytes a second to and from it; no limit if absent. */
  readonly maxBytesPerSecond?: number;
}

/* Fixed by Redis */
const PORT = 6379;
const SENTINEL_PORT = 26_379;
export const CLUSTER_SLOTS = 16_384;

/** Scheme, kind, user, host, port, and the name that sentinels know. */
const NETWORK: RegExp = new RegExp(
  [
    /^(rediss?)(?:\+(sentinel|cluster))?:\/\//,
    /(?:([^@/]*)@)?(\[[0-9a-fA-F:.%]+\]|[^:/@[\]]+)(?::(\d{1,5}))?/,
    /(?:\/([\w.-]*))?$/,
  ]
    .map(({ source }) => source)
    .join(''),
);

const FILE_OPTIONS = {
  'password-file': 'passwordFile',
  ca: 'caFile',
  cert: 'certificateFile',
  key: 'keyFile',
} as const;

/**
 * Reads an intermediary: `redis://[USER@]HOST[:PORT]`, `redis+unix:/PATH`,
 * `redis+sentinel://[USER@]HOST[:PORT]/NAME` with more of them as `sentinel=HOST:PORT`, or
 * `redis+cluster://[USER@]HOST[:PORT]`; with `rediss` in place of `redis` over TLS. After any of
 * them options: `?max=400mbit&password-file=/etc/pagelane/redis&ca=/etc/ca.pem&cert=…&key=…`.
 *
 * @throws {SyntaxError} If it is none of them, holds a password, or has an option there is not.
 */
export function parseIntermediary(text: string): IntermediaryAddress {
  const [where = '', query = ''] = split(text, '?');
  const { sentinels, ...options } = parseOptions(text, query);
  const unix = /^redis\+unix:(\/.+)$/.exec(where);
  if (unix !== null) {
    return { text, at: { kind: 'unix', path: unix[1]! }, isEncrypted: false, ...options };
  }
  const found = NETWORK.exec(where);
  if (found === null) throw notAnAddress(where);
  const [, scheme, kind = 'tcp', user, host, digits, name] = found;
  if (user?.includes(':')) {
    throw new SyntaxError(
      'Cannot read intermediary: a password on a command line can be read by everybody; ' +
        'use ?password-file=FILE or PAGELANE_REDIS_PASSWORD',
    );
  }
  const port = Number(digits ?? (kind === 'sentinel' ? SENTINEL_PORT : PORT));
  const isNamed = name !== undefined && name !== '';
  if (port < 1 || port > 65_535 || isNamed !== (kind === 'sentinel')) throw notAnAddress(where);
  const first = { host: host!.replace(/^\[(.*)\]$/, '$1'), port };
  return {
    text,
    at:
      kind === 'sentinel'
        ? { kind, sentinels: [first, ...sentinels], name: name! }
        : { kind: kind as 'tcp' | 'cluster', ...first },
    isEncrypted: scheme === 'rediss',
    ...(user !== undefined && user !== '' && { user: decodeURIComponent(user) }),
    ...options,
  };
}

/** The node of a cluster that holds a slot, as it would be written. */
export function nodeAddress(
  cluster: IntermediaryAddress,
  { host, port, slot }: { readonly host: string; readonly port: number; readonly slot: number },
): IntermediaryAddress {
  const [where = '', query = ''] = split(cluster.text, '?');
  const user = /\/\/([^@/]*@)/.exec(where)?.[1] ?? '';
  const scheme = cluster.isEncrypted ? 'rediss' : 'redis';
  const options = [query, `slot=${slot}`].filter((part) => part !== '').join('&');
  return parseIntermediary(`${scheme}://${user}${formatHostPort(host, port)}?${options}`);
}

/**
 * The address as another host may use it: without names of files, which are this host's, and
 * without limits.
 */
export function sharedText({ text }: IntermediaryAddress): string {
  const [where = '', query = ''] = split(text, '?');
  const shared = query.split('&').filter((part) => /^(slot|sentinel)=/.test(part));
  return shared.length === 0 ? where : `${where}?${shared.join('&')}`;
}

/** What was written is not repeated: it might hold a password. */
function notAnAddress(where: string): SyntaxError {
  const shown = where.includes('@') ? where.slice(where.lastIndexOf('@') + 1) : where;
  return new SyntaxError(
    `Cannot read intermediary "${shown}": expected redis://[USER@]HOST[:PORT], ` +
      'rediss://…, redis+unix:/PATH, redis+sentinel://HOST/NAME or redis+cluster://HOST',
  );
}

function split(text: string, mark: string): [string, string?] {
  const at = text.indexOf(mark);
  return at < 0 ? [text] : [text.slice(0, at), text.slice(at + 1)];
}

type Options = { -readonly [Key in keyof IntermediaryAddress]?: IntermediaryAddress[Key] };

function parseOptions(
  text: string,
  query: string,
): Options & { sentinels: { host: string; port: number }[] } {
  const options: Options & { sentinels: { host: string; port: number }[] } = { sentinels: [] };
  for (const part of query === '' ? [] : query.split('&')) {
    const [name, value = ''] = split(part, '=');
    if (name === 'max') {
      options.maxBytesPerSecond = parseRate(value);
    } else if (name === 'sentinel') {
      options.sentinels.push(parseHostPort(value));
    } else if (name === 'slot' && /^\d{1,5}$/.test(value) && Number(value) < CLUSTER_SLOTS) {
      options.slot = Number(value);
    } else if (name in FILE_OPTIONS && value !== '') {
      options[FILE_OPTIONS[name as keyof typeof FILE_OPTIONS]] = decodeURIComponent(value);
    } else {
      const known = ['max', 'sentinel', 'slot', ...Object.keys(FILE_OPTIONS)].join(', ');
      throw new SyntaxError(
        `Cannot read intermediary "${split(text, '?')[0]}": option "${name}", expected ${known}`,
      );
    }
  }
  return options;
}
