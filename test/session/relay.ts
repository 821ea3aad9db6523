import { once } from 'node:events';
import net from 'node:net';

/** How a connection can end without a word. */
export type Cut = 'reset' | 'finish';

/** How a relay can lose what goes through it: a reset, an end, or silence for ever. */
export type Harm = Cut | 'swallow';

/** A relay on loopback, through which one path goes. */
export class Relay {
  /** Port it relays to. */
  readonly to: number;
  /** Port it listens on. */
  readonly port: number;
  readonly #server: net.Server;
  readonly #pairs: (readonly [net.Socket, net.Socket])[] = [];
  #isSwallowing = false;
  /** Somebody has connected. */
  onArrival: (() => void) | undefined;

  private constructor(server: net.Server, to: number) {
    this.#server = server;
    this.to = to;
    this.port = (server.address() as net.AddressInfo).port;
    server.on('connection', (near) => this.#onConnection(near));
  }

  /** @param port Where it listens; the system chooses if it is 0. */
  static async open(to: number, port = 0): Promise<Relay> {
    const server = net.createServer();
    server.listen(port, '127.0.0.1');
    await once(server, 'listening');
    return new Relay(server, to);
  }

  /** Loses the connections that are open, and takes no other. */
  harm(how: Harm): void {
    this.#server.close();
    this.#isSwallowing = how === 'swallow';
    if (how !== 'swallow') this.cut(how);
  }

  /** Loses the connections that are open; others may follow. */
  cut(how: Cut): void {
    for (const socket of this.#pairs.splice(0).flat()) {
      if (how === 'reset') socket.resetAndDestroy();
      else socket.destroy();
    }
  }

  /** Writes bytes of its own to the far end, between what goes through. */
  inject(bytes: Uint8Array): void {
    for (const [, far] of this.#pairs) far.write(bytes);
  }

  close(): void {
    this.#server.close();
    for (const socket of this.#pairs.flat()) socket.destroy();
  }

  #onConnection(near: net.Socket): void {
    this.onArrival?.();
    const far = net.connect({ port: this.to, host: '127.0.0.1' });
    this.#pairs.push([near, far]);
    for (const [from, onto] of [
      [near, far],
      [far, near],
    ] as const) {
      from.setNoDelay(true);
      from.on('error', () => {});
      from.on('close', () => onto.destroy());
      from.on('drain', () => onto.resume());
      from.on('data', (chunk) => {
        if (!this.#isSwallowing && !onto.write(chunk)) from.pause();
      });
    }
  }
}
