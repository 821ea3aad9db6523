import { readFileSync } from 'node:fs';
import { Redis, type RedisOptions } from 'ioredis';
import { messageOf, StagingError } from '../errors.ts';
import type { IntermediaryAddress } from './address.ts';
import { CONNECT_TIMEOUT_MS, REPLY_TIMEOUT_MS, RETRY_MS_MAX } from './limits.ts';
import { stagingErrorOf } from './redis-error.ts';
import { type LargeValue, setLarge } from './set-command.ts';

/** Where passwords come from that no file has. */
const PASSWORD_VARIABLE = 'PAGELANE_REDIS_PASSWORD';

/** A connection to an intermediary that connects itself anew, once it was there. */
export interface Client {
  readonly redis: Redis;
  /** SET of a value that must not change until the promise settles; Redis's answer. */
  setLarge(key: string, value: LargeValue): Promise<unknown>;
  close(): void;
}

/**
 * Connects.
 *
 * @throws {StagingError} ERR_STAGING_CONNECT If nobody is reached there; ERR_STAGING_AUTH If it
 *   does not let this user in.
 */
export async function connectClient(address: IntermediaryAddress): Promise<Client> {
  let isWanted = false;
  let said: unknown;
  const again = (tries: number): number | null =>
    isWanted ? Math.min(50 * 2 ** tries, RETRY_MS_MAX) : null;
  const options: RedisOptions & { replyMapping: 'legacy' } = {
    ...whereOptions(address),
    replyMapping: 'legacy',
    retryStrategy: again,
    sentinelRetryStrategy: again,
  };
  const redis = new Redis(options);
  // An error that nobody listens to ends the process; commands tell all the same.
  redis.on('error', (cause) => {
    said = cause;
  });
  try {
    await redis.connect();
    await redis.ping();
  } catch (cause) {
    redis.disconnect();
    const error = stagingErrorOf(said ?? cause, address.text);
    const isAuth = error.code === 'ERR_STAGING_AUTH';
    throw new StagingError(isAuth ? error.code : 'ERR_STAGING_CONNECT', error.message, {
      intermediary: address.text,
      cause,
    });
  }
  isWanted = true;
  return {
    redis,
    setLarge: (key, value) => setLarge(redis, key, value),
    close: () => {
      isWanted = false;
      redis.disconnect();
    },
  };
}

function whereOptions(address: IntermediaryAddress): RedisOptions {
  const { at, user } = address;
  const password = readPassword(address);
  return {
    ...instanceOptions(at),
    ...(user !== undefined && { username: user }),
    ...(password !== undefined && { password }),
    ...(address.isEncrypted && { tls: tlsOptions(address), enableTLSForSentinelMode: true }),
    connectTimeout: CONNECT_TIMEOUT_MS,
    commandTimeout: REPLY_TIMEOUT_MS,
    // What fails, fails at once: whoever asked knows better where else to ask.
    maxRetriesPerRequest: 0,
    enableOfflineQueue: false,
    autoResendUnfulfilledCommands: false,
    enableReadyCheck: false,
    lazyConnect: true,
    // The commands that an ACL user needs stay few.
    disableClientInfo: true,
    protocol: 2,
  };
}

function instanceOptions(at: IntermediaryAddress['at']): RedisOptions {
  if (at.kind === 'unix') return { path: at.path };
  if (at.kind === 'sentinel') return { sentinels: [...at.sentinels], name: at.name };
  return { host: at.host, port: at.port };
}

function tlsOptions(address: IntermediaryAddress): Record<string, string | Buffer> {
  const { at, caFile, certificateFile, keyFile } = address;
  return {
    ...(at.kind === 'tcp' && { host: at.host }),
    ...(caFile !== undefined && { ca: readOwn(address, caFile) }),
    ...(certificateFile !== undefined && { cert: readOwn(address, certificateFile) }),
    ...(keyFile !== undefined && { key: readOwn(address, keyFile) }),
    minVersion: 'TLSv1.2',
  };
}

function readPassword(address: IntermediaryAddress): string | undefined {
  if (address.passwordFile === undefined) {
    return address.isForeign ? undefined : process.env[PASSWORD_VARIABLE];
  }
  return readOwn(address, address.passwordFile)
    .toString('utf8')
    .replace(/\r?\n$/, '');
}

function readOwn({ text }: IntermediaryAddress, file: string): Buffer {
  try {
    return readFileSync(file);
  } catch (cause) {
    throw new StagingError('ERR_STAGING_AUTH', `Cannot read "${file}": ${messageOf(cause)}`, {
      intermediary: text,
      cause,
    });
  }
}
