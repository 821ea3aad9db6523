import { rmSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { codeOf, messageOf, PagelaneError } from '../errors.ts';

/**
 * Connects to a control socket.
 *
 * @returns The connection, which has a listener for its errors; undefined if no process has the
 *   socket any more, and then its file is removed.
 * @throws {PagelaneError} ERR_CONTROL_CLOSED If there is something that cannot be reached.
 */
export async function dialControl(path: string): Promise<Socket | undefined> {
  try {
    return await connected(path);
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return undefined;
    // A socket has its name only while it is listened on: who refuses is gone for good.
    if (codeOf(error) === 'ECONNREFUSED' && isRemoved(path)) return undefined;
    const message = `Cannot reach ${path}: ${messageOf(error)}`;
    throw new PagelaneError('ERR_CONTROL_CLOSED', message, { cause: error });
  }
}

function connected(path: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ path });
    socket.on('error', reject);
    socket.once('connect', () => resolve(socket));
  });
}

function isRemoved(path: string): boolean {
  try {
    rmSync(path, { force: true });
    return true;
  } catch {
    return false;
  }
}
