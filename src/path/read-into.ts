import { type OnReadOpts, Socket, type SocketConstructorOpts } from 'node:net';
import type { TLSSocket } from 'node:tls';
import type { ReadOptions, SocketLink } from './connection.ts';

/*
 * Accepted sockets that read into our buffer
 *
 * Node takes a read buffer only when a socket is made, and a server makes its sockets itself.
 * Without one, every 16 KiB of TLS cost a buffer and the machinery of a stream, a sixth of a
 * receiver's processor time. The ways round it are not documented; where they are missing, a
 * socket is used as it is.
 */

/** An accepted socket: another one around the same connection, if `hasReadOptions`. */
export interface AcceptedSocket {
  readonly taken: Socket;
  readonly hasReadOptions: boolean;
}

/** Gives the connection of a plain socket to one that was made to read into `link`. */
export function takeSocket(socket: Socket, link: SocketLink): AcceptedSocket {
  const owner = socket as unknown as { _handle?: object | null };
  const handle = owner._handle;
  if (handle === undefined || handle === null || !('readStart' in handle)) {
    return { taken: socket, hasReadOptions: false };
  }
  owner._handle = null;
  socket.destroy();
  const options = { handle, onread: link.readOptions, readable: true, writable: true };
  const taken = new Socket(options as unknown as SocketConstructorOpts);
  taken.on('error', () => {});
  return { taken, hasReadOptions: true };
}

/** Makes a TLS socket, which cannot be given away, read into `link` from now on. */
export function readInto(socket: TLSSocket, link: SocketLink): AcceptedSocket {
  const asItIs = { taken: socket, hasReadOptions: false };
  const { _handle: handle } = socket as unknown as {
    _handle?: { useUserBuffer?: (buffer: Uint8Array) => void } | null;
  };
  const fields = readFields();
  if (fields === undefined || typeof handle?.useUserBuffer !== 'function') return asItIs;
  if (socket.readableLength > 0) return asItIs;
  const options: ReadOptions = link.readOptions;
  const first = options.buffer();
  Object.assign(socket, {
    [fields.buffer]: first,
    [fields.nextBuffer]: options.buffer,
    [fields.callback]: options.callback,
  });
  handle.useUserBuffer(first);
  return { taken: socket, hasReadOptions: true };
}

interface ReadFields {
  readonly buffer: symbol;
  readonly nextBuffer: symbol;
  readonly callback: symbol;
}

/** Where a socket keeps its read options, found on one that was given some. */
function readFields(): ReadFields | undefined {
  const onread = { buffer: new Uint8Array(1), callback: () => true } satisfies OnReadOpts;
  const sample = new Socket({ onread } as SocketConstructorOpts);
  const symbols = Object.getOwnPropertySymbols(sample);
  const find = (name: string) => symbols.find(({ description }) => description === name);
  const [buffer, nextBuffer, callback] = ['kBuffer', 'kBufferGen', 'kBufferCb'].map(find);
  if (buffer === undefined || nextBuffer === undefined || callback === undefined) return undefined;
  return { buffer, nextBuffer, callback };
}
