import type { Writable } from 'node:stream';
import { Command, type Redis } from 'ioredis';

export interface LargeValue {
  readonly value: Uint8Array;
  /** Milliseconds. */
  readonly ttlMs: number;
}

/**
 * SET of a large value, which is handed to the socket as it is: ioredis copies a command's
 * arguments into one buffer before it writes them.
 *
 * @param value Must not change until the promise settles.
 * @returns Redis's answer: `OK`.
 */
export function setLarge(
  redis: Redis,
  key: string,
  { value, ttlMs }: LargeValue,
): Promise<unknown> {
  const command = new LargeSet(key, value, ttlMs);
  redis.sendCommand(command);
  return command.promise;
}

class LargeSet extends Command {
  readonly #head: Buffer;
  readonly #value: Uint8Array;
  readonly #tail: Buffer;

  constructor(key: string, value: Uint8Array, ttlMs: number) {
    super('set', [key, 'value', 'PX', ttlMs], { replyEncoding: 'utf8' });
    const keyBytes = Buffer.byteLength(key);
    const ttl = `${ttlMs}`;
    this.#head = Buffer.from(`*5\r\n$3\r\nset\r\n$${keyBytes}\r\n${key}\r\n$${value.length}\r\n`);
    this.#value = value;
    this.#tail = Buffer.from(`\r\n$2\r\nPX\r\n$${ttl.length}\r\n${ttl}\r\n`);
  }

  /** Writes all but the end, which is returned; together they leave in one call. */
  override toWritable(socket: Writable): Buffer {
    socket.cork();
    process.nextTick(() => socket.uncork());
    socket.write(this.#head);
    socket.write(this.#value);
    return this.#tail;
  }
}
