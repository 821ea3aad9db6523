import { randomBytes } from 'node:crypto';
import { setMaxListeners } from 'node:events';
import { formatHostPort, type PathAddress, type PathSpec, parseHostPort } from '../address.ts';
import { PagelaneError, PathError, RemoteError } from '../errors.ts';
import { SESSION_ID_BYTES } from '../frame/limits.ts';
import type { Offer } from '../frame/offer.ts';
import { type DialledLink, dial } from '../path/dial.ts';
import { findPaths } from '../path/find.ts';
import { localAddresses } from '../path/interfaces.ts';
import { EventLog } from './events.ts';
import { runClientHandshake, type Welcomed } from './handshake.ts';
import { PEER_GONE_MS, REDIAL_MS_MAX, REDIAL_TIMEOUT_MS, SHORT_LIFE_MS } from './limits.ts';
import type { CheckedOptions } from './options.ts';
import { redialDelayMs } from './redial.ts';
import { type PathOpener, Session } from './session.ts';

/** What an opener needs beside what both ends have. */
export interface OpenerOptions extends CheckedOptions {
  readonly find: readonly PathSpec[];
  readonly rekeyBytes: number | undefined;
}

/** A way to the peer that should be open: it is dialled again when its path is lost. */
interface Route {
  /** Ways to open it; the one in use first. */
  addresses: readonly PathAddress[];
  pathId: number | undefined;
  openedAtMs: number;
  /** Attempts that failed in a row, or paths that were lost at once. */
  failures: number;
  /** Nobody listened at the last attempt. */
  isRefused: boolean;
}

/**
 * Opens the paths of one session: the first of them opens the session, all are opened again when
 * they are lost, until they are removed or the session is over.
 */
export class Opener implements PathOpener {
  session: Session | undefined;
  /** Resolves when there is a session. */
  readonly opened: Promise<void>;
  readonly #options: OpenerOptions;
  readonly #events = new EventLog();
  readonly #stop = new AbortController();
  readonly #signal: AbortSignal;
  readonly #routes: Route[] = [];
  #secret: Uint8Array | undefined;
  #id: Uint8Array = newId();
  /** Settles when the connection that tries to open the session has done so, or failed. */
  #attempt: Promise<void> | undefined;
  #refusedSinceMs: number | undefined;
  /** Settles when no path is being replaced: one after the other, so that the others carry on. */
  #replacing: Promise<void> = Promise.resolve();
  /** The paths that were named, when others were asked for: closed when one of those is open. */
  #unwanted: Route[] = [];
  #onOpened!: () => void;

  constructor(options: OpenerOptions, signal: AbortSignal | undefined) {
    this.#options = options;
    this.#signal = AbortSignal.any([this.#stop.signal, ...(signal === undefined ? [] : [signal])]);
    // Every path that is being opened listens: more than Node takes for a leak.
    for (const listened of [this.#signal, this.#stop.signal]) setMaxListeners(0, listened);
    this.opened = new Promise((resolve) => {
      this.#onOpened = resolve;
    });
  }

  /** Opens a path of the beginning. One that fails while the session lives is tried again. */
  async open(address: PathAddress): Promise<void> {
    const route = this.#addRoute([address]);
    try {
      const dialled = await this.#dial(address, this.#options.handshakeTimeoutMs, this.#signal);
      while (this.session === undefined && this.#attempt !== undefined) await this.#attempt;
      if (this.session === undefined) await this.#attemptNew(dialled, route);
      else await this.#join(dialled, route, this.#signal);
    } catch (error) {
      this.#noteFailure(route, error);
      route.failures++;
      this.#redialLater(route);
      throw error;
    }
  }

  /** Opens a further path; if that fails, it is not tried again. */
  async add(address: PathAddress): Promise<void> {
    const { signal } = this.#stop;
    const dialled = await this.#dial(address, this.#options.handshakeTimeoutMs, signal);
    const route = this.#addRoute([address]);
    try {
      await this.#join(dialled, route, signal);
    } catch (error) {
      this.#dropRoute(route);
      throw error;
    }
  }

  onPathGone(id: number, { isLost }: { isLost: boolean }): void {
    const route = this.#routes.find(({ pathId }) => pathId === id);
    if (route === undefined) return;
    route.pathId = undefined;
    // Each side may have removed what was the last path but one: then this one is opened again.
    if (!isLost && this.session?.isStalled !== true) {
      this.#dropRoute(route);
      return;
    }
    const livedMs = this.#options.clock.now() - route.openedAtMs;
    route.failures = livedMs < SHORT_LIFE_MS ? route.failures + 1 : 0;
    this.#redialLater(route);
  }

  onPathWorn(id: number): void {
    const route = this.#routes.find(({ pathId }) => pathId === id);
    if (route === undefined) return;
    this.#replacing = this.#replacing.then(() => this.#replace(route, id));
  }

  onOffer(offer: Offer): void {
    const { find } = this.#options;
    if (find.length === 0) return;
    const { addresses: offered, port } = offer;
    const { paths, notes } = findPaths(find, { local: localAddresses(), offered, port });
    for (const message of notes) this.#events.add({ type: 'note', message });
    const named = new Set(this.#routes);
    for (const { addresses } of paths) {
      const found = [...named].find((route) => this.#leadsTo(route, addresses));
      if (found === undefined) {
        this.#redialLater(this.#addRoute(addresses));
      } else {
        named.delete(found);
        this.#keepNamed(found, addresses[0].maxBytesPerSecond);
      }
    }
    this.#unwanted = [...named];
  }

  /** Gives up what is being opened, and the session if there is one. */
  abandon(error: unknown): void {
    this.#stop.abort(error);
    const why = error instanceof PagelaneError ? error : abortedError(error);
    this.session?.fail(why);
  }

  #addRoute(addresses: readonly PathAddress[]): Route {
    const fresh = { pathId: undefined, openedAtMs: 0, failures: 0, isRefused: false };
    const route: Route = { addresses, ...fresh };
    this.#routes.push(route);
    return route;
  }

  #dropRoute(route: Route): void {
    const index = this.#routes.indexOf(route);
    if (index >= 0) this.#routes.splice(index, 1);
  }

  #dial(address: PathAddress, timeoutMs: number, signal: AbortSignal): Promise<DialledLink> {
    const { security, clock } = this.#options;
    return dial(address, { security, clock, timeoutMs, signal });
  }

  /** Opens the session over this connection; others wait meanwhile. */
  async #attemptNew(dialled: DialledLink, route: Route): Promise<void> {
    let done!: () => void;
    this.#attempt = new Promise((resolve) => {
      done = resolve;
    });
    // A server may know the id of an attempt that failed on the way back.
    this.#id = newId();
    try {
      await this.#greet(dialled, this.#signal, (welcomed) => this.#begin(dialled, route, welcomed));
    } finally {
      this.#attempt = undefined;
      done();
    }
  }

  #begin(dialled: DialledLink, route: Route, welcomed: Welcomed): void {
    const { windowBytes, resumeTimeoutMs, rekeyBytes, clock } = this.#options;
    const session = new Session({
      id: this.#id,
      role: 'client',
      windowBytes,
      peerWindowBytes: welcomed.peerWindowBytes,
      resumeTimeoutMs,
      rekeyBytes,
      clock,
      events: this.#events,
      opener: this,
    });
    this.#secret = welcomed.secret;
    this.session = session;
    session.ended.then((error) => this.#stop.abort(error ?? abortedError('the session is closed')));
    this.#adopt(dialled, route, welcomed);
    this.#onOpened();
  }

  #adopt({ link }: DialledLink, route: Route, { rttMs }: Welcomed): void {
    const { maxBytesPerSecond } = route.addresses[0]!;
    route.pathId = this.session!.adopt(link, { rttMs, maxBytesPerSecond });
    if (route.pathId === undefined) return;
    route.openedAtMs = this.#options.clock.now();
    route.isRefused = false;
    this.#refusedSinceMs = undefined;
    this.#closeUnwanted(route);
  }

  async #join(dialled: DialledLink, route: Route, signal: AbortSignal): Promise<void> {
    const session = this.session!;
    await this.#greet(dialled, signal, (welcomed) => this.#adopt(dialled, route, welcomed));
    const isOpen = session
      .pathReports()
      .some(({ id, state }) => id === route.pathId && state === 'open');
    if (isOpen) return;
    const { remote } = dialled.link;
    throw new PathError('ERR_PATH_LOST', `Path to ${remote} was lost as it joined`, remote);
  }

  #greet(
    { link, exporter }: DialledLink,
    signal: AbortSignal,
    onWelcome: (welcomed: Welcomed) => void,
  ): Promise<void> {
    const { security, windowBytes, clock, handshakeTimeoutMs } = this.#options;
    const isOneOfMany = this.session === undefined && this.#routes.length > 1;
    const parts = {
      link,
      exporter,
      id: this.#id,
      windowBytes,
      isSecure: security.kind !== 'none',
      clock,
      // While one path opens the session, the others' time at the server runs.
      timeoutMs: isOneOfMany ? handshakeTimeoutMs / 2 : handshakeTimeoutMs,
      signal,
      ...(this.#secret === undefined ? {} : { secret: this.#secret }),
    };
    return runClientHandshake(parts, onWelcome);
  }

  #redialLater(route: Route): void {
    const delayMs = redialDelayMs(route.failures, Math.random());
    this.#options.clock.after(delayMs, () => this.#redial(route));
  }

  async #redial(route: Route): Promise<void> {
    const { session } = this;
    const isDue = route.pathId === undefined && this.#routes.includes(route);
    if (!isDue || this.#stop.signal.aborted) return;
    if (session === undefined) {
      this.#redialLater(route);
      return;
    }
    try {
      await this.#dialWays(route);
    } catch (error) {
      if (this.#stop.signal.aborted) return;
      if (route.failures === 0) this.#noteFailure(route, error);
      route.failures++;
      route.isRefused = error instanceof PathError && error.code === 'ERR_PATH_REFUSED';
      if (this.#isPeerGone(session, error)) session.giveUp(error as PagelaneError);
      else this.#redialLater(route);
    }
  }

  /** Tries the ways of a route one after the other; what works comes first from then on. */
  async #dialWays(route: Route): Promise<void> {
    const { signal } = this.#stop;
    const timeoutMs = Math.min(
      REDIAL_TIMEOUT_MS * (1 + route.failures),
      this.#options.handshakeTimeoutMs,
    );
    let lastError: unknown;
    for (const address of route.addresses) {
      try {
        const dialled = await this.#dial(address, timeoutMs, signal);
        route.addresses = [address, ...route.addresses.filter((other) => other !== address)];
        await this.#join(dialled, route, signal);
        return;
      } catch (error) {
        signal.throwIfAborted();
        lastError = error;
      }
    }
    throw lastError;
  }

  /** Whether it is no use to wait any longer: the peer's process has gone, or forgotten us. */
  #isPeerGone(session: Session, error: unknown): boolean {
    if (!session.isStalled) return false;
    if (error instanceof RemoteError && error.code === 'ERR_SESSION_UNKNOWN') return true;
    const nowMs = this.#options.clock.now();
    if (this.#routes.some(({ isRefused }) => !isRefused)) this.#refusedSinceMs = undefined;
    else this.#refusedSinceMs ??= nowMs;
    return this.#refusedSinceMs !== undefined && nowMs - this.#refusedSinceMs >= PEER_GONE_MS;
  }

  /** Opens a new connection in the place of one whose keys were used for long enough. */
  async #replace(route: Route, oldId: number): Promise<void> {
    if (route.pathId !== oldId || this.#stop.signal.aborted) return;
    const session = this.session!;
    try {
      if (session.hasRoomForPath) {
        await this.#dialWays(route);
        await session.removePath(oldId);
      } else {
        await this.#makeRoom(route, oldId);
        await this.#redial(route);
      }
    } catch {
      // The old one is as good as ever, for a while.
      this.#options.clock.after(REDIAL_MS_MAX, () => this.onPathWorn(oldId));
    }
  }

  /** Closes the path of a route that is to have another one. */
  async #makeRoom(route: Route, id: number): Promise<void> {
    route.pathId = undefined;
    try {
      await this.session!.removePath(id);
    } catch (error) {
      // It is the only one at the moment.
      route.pathId = id;
      throw error;
    }
  }

  /** Whether a route is one of these, as it was named or as it came to be. */
  #leadsTo({ addresses: [named], pathId }: Route, addresses: readonly PathAddress[]): boolean {
    const report = this.session!.pathReports().find(({ id }) => id === pathId);
    const from = report && parseHostPort(report.local).host;
    return addresses.some(({ host, port, local }) => {
      const isNamed = named!.host === host && named!.port === port && named!.local === local;
      return isNamed || (from === local && report?.remote === formatHostPort(host, port));
    });
  }

  /** A path that was named is one of those that were to be found: their limit holds for it. */
  #keepNamed(route: Route, maxBytesPerSecond: number | undefined): void {
    if (maxBytesPerSecond === undefined) return;
    route.addresses = route.addresses.map((address) => ({ ...address, maxBytesPerSecond }));
    if (route.pathId !== undefined) this.session!.setPathMax(route.pathId, maxBytesPerSecond);
  }

  /** What was only named to find others is not used once one of those is open. */
  #closeUnwanted(opened: Route): void {
    if (this.#unwanted.length === 0 || this.#unwanted.includes(opened)) return;
    for (const route of this.#unwanted.splice(0)) {
      this.#dropRoute(route);
      const id = route.pathId;
      if (id !== undefined) this.session!.removePath(id).catch(() => {});
    }
  }

  #noteFailure(route: Route, error: unknown): void {
    if (this.#signal.aborted) return;
    const { host, port } = route.addresses[0]!;
    const { code, message } = error instanceof PagelaneError ? error : abortedError(error);
    const remote = formatHostPort(host, port);
    this.#events.add({ type: 'pathFailed', remote, code, reason: message });
  }
}

function newId(): Uint8Array {
  return new Uint8Array(randomBytes(SESSION_ID_BYTES));
}

function abortedError(reason: unknown): PagelaneError {
  const text = reason instanceof Error ? reason.message : String(reason);
  return new PagelaneError('ERR_ABORTED', `Paths are no longer opened: ${text}`);
}
