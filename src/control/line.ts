import type { Socket } from 'node:net';
import type { Clock } from '../clock.ts';
import { messageOf, PagelaneError } from '../errors.ts';

/** What line is waited for, and how long. */
export interface LineOptions {
  /** What is waited for, as a phrase: `a request`. */
  readonly what: string;
  /** Longest line, its end included. */
  readonly bytesMax: number;
  readonly timeoutMs: number;
  /** Code of a line that is too long. */
  readonly code: string;
  readonly clock: Clock;
}

const LINE_FEED = 0x0a;

/**
 * Reads the first line of a socket. What follows it is not read. Later errors of the socket are
 * left to others.
 *
 * @returns The line without its end.
 * @throws {PagelaneError} `code` If it is longer than `bytesMax`.
 * @throws {PagelaneError} ERR_CONTROL_TIMEOUT If it is not whole after `timeoutMs`.
 * @throws {PagelaneError} ERR_CONTROL_CLOSED If the socket ends or breaks before that.
 */
export function readLine(socket: Socket, options: LineOptions): Promise<string> {
  const { what, bytesMax, timeoutMs, code, clock } = options;
  return new Promise((resolve, reject) => {
    const chunks: Uint8Array[] = [];
    let bytes = 0;
    const stop = (): void => {
      cancelTimer();
      socket.off('data', take).off('end', onEnd).off('close', onEnd).off('error', onError);
      socket.pause();
    };
    const fail = (failure: string, message: string): void => {
      stop();
      reject(new PagelaneError(failure, message));
    };
    const take = (chunk: Uint8Array): void => {
      const end = chunk.indexOf(LINE_FEED);
      const part = end < 0 ? chunk : chunk.subarray(0, end);
      bytes += part.length;
      if (bytes >= bytesMax) {
        fail(code, `Cannot read ${what}: it is longer than ${bytesMax} bytes`);
        return;
      }
      chunks.push(part);
      if (end < 0) return;
      stop();
      resolve(Buffer.concat(chunks).toString('utf8'));
    };
    const onEnd = (): void => fail('ERR_CONTROL_CLOSED', `The socket closed before ${what} came`);
    const onError = (error: Error): void =>
      fail('ERR_CONTROL_CLOSED', `The socket broke before ${what} came: ${messageOf(error)}`);
    const cancelTimer = clock.after(timeoutMs, () =>
      fail('ERR_CONTROL_TIMEOUT', `Waited ${timeoutMs} ms for ${what}`),
    );
    socket.on('data', take).on('end', onEnd).on('close', onEnd).on('error', onError);
  });
}
