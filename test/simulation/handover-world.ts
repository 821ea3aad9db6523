import type { JournalEntry } from '../../src/migration/commit.ts';
import type { GuestHooks, HandoverOptions } from '../../src/migration/handover.ts';
import { DestinationHandover } from '../../src/migration/handover-destination.ts';
import {
  decodeHandover,
  encodeHandover,
  type HandoverMessage,
} from '../../src/migration/handover-message.ts';
import { SourceHandover } from '../../src/migration/handover-source.ts';
import type { Journal } from '../../src/migration/journal.ts';
import { recover } from '../../src/migration/recover.ts';
import { SimulatedNetwork } from '../support/network.ts';

/* How bad it gets */
const LOSS = 0.05;
const REPEATED = 0.2;
const DELAY_MS_MAX = 400;
const CRASH = 0.05;
const CRASHES_MAX = 3;
const BROKEN_WRITE = 0.05;
const BROKEN_HOOK = 0.05;
const BREAKS_MAX = 2;
const CUT = 0.25;
const ATTEMPTS_MAX = 2;
const LIMIT_MS: number = 60 * 60_000;

const MIGRATION = 'ab'.repeat(16);

type Name = 'source' | 'destination';
type Handover = SourceHandover | DestinationHandover;

/** What a world may have that it should not. */
export interface Flaws {
  /** A journal that says that it has written, and forgets it in a crash. */
  readonly isForgetful?: boolean;
}

/**
 * Two hosts and a guest, made of a seed: the real classes, with journals in memory. Messages are
 * lost, repeated and late; processes crash at any write, any message and any hook, and begin anew.
 */
export class HandoverWorld {
  readonly network: SimulatedNetwork;
  /** What happened that never may. */
  readonly wrong: string[] = [];
  readonly source: Host;
  readonly destination: Host;
  hasRunThere = false;
  readonly flaws: Flaws;
  /** Nothing fails any more, and nothing new begins. */
  isClosing = false;

  constructor(seed: number, flaws: Flaws = {}) {
    this.network = new SimulatedNetwork(seed);
    this.flaws = flaws;
    this.source = new SourceHost(this, 'source');
    this.destination = new DestinationHost(this, 'destination');
  }

  chance(probability: number): boolean {
    return !this.isClosing && this.network.random() < probability;
  }

  peerOf(name: Name): Host {
    return name === 'source' ? this.destination : this.source;
  }

  check(): void {
    const isHere = this.source.guest === 'running';
    if (isHere && this.destination.guest === 'running') this.wrong.push('two run');
    if (isHere && this.hasRunThere) this.wrong.push('the source runs what ran there');
    if (this.source.guest === 'none' && !this.hasRunThere) this.wrong.push('the guest is lost');
  }

  /**
   * Runs until it is over.
   *
   * @returns Where the guest runs, one letter for each host, and what the journals hold.
   */
  async run(): Promise<string> {
    const beat = (): void => void this.network.after(20, beat);
    beat();
    this.source.boot();
    this.destination.boot();
    if (this.chance(CUT)) this.#cutLater();
    await this.#until(() => this.source.isDone);
    // The source has nothing more to say: their session ends, and its end takes the rest along.
    if (this.source.guest === 'running') this.destination.cut();
    await this.#until(() => this.destination.isOver);
    // Whatever could not be written is made good by processes that begin anew.
    this.isClosing = true;
    for (const host of [this.source, this.destination]) {
      host.crash();
      host.mend();
    }
    await this.#until(() => this.source.isDone && this.source.isOver && this.destination.isOver);
    const { source, destination } = this;
    return `${source.guest} ${source.state}, ${destination.guest} ${destination.state}`;
  }

  async #until(isSo: () => boolean): Promise<void> {
    const isDone = (): boolean => this.wrong.length > 0 || isSo();
    if (await this.network.run({ isDone, limitMs: LIMIT_MS })) return;
    this.wrong.push(`not over: ${this.source.state}, ${this.destination.state}`);
  }

  #cutLater(): void {
    const { network } = this;
    network.after(network.random() * 4000, () => {
      for (const host of [this.source, this.destination]) host.cut();
      network.after(network.random() * 90_000, () => {
        for (const host of [this.source, this.destination]) host.mend();
      });
    });
  }
}

/** One host: its journal, its copy of the guest, and the process that crashes. */
abstract class Host implements Journal {
  guest: 'running' | 'paused' | 'none';
  isDone = false;
  protected handover: Handover | undefined;
  protected readonly world: HandoverWorld;
  protected readonly name: Name;
  #entry: JournalEntry | undefined;
  #before: JournalEntry | undefined;
  #process = 0;
  #isUp = false;
  #isCut = false;
  #crashes = 0;
  #breaks = 0;

  constructor(world: HandoverWorld, name: Name) {
    this.world = world;
    this.name = name;
    this.guest = name === 'source' ? 'running' : 'none';
  }

  /** A process begins; whatever it throws ends it. */
  boot(): void {
    const process = ++this.#process;
    this.#isUp = true;
    this.live(process).catch(() => {
      if (process === this.#process && this.#isUp) this.crash();
    });
  }

  protected abstract live(process: number): Promise<void>;
  abstract take(message: HandoverMessage | Memory): void;

  protected isAlive(process: number): boolean {
    return this.#isUp && process === this.#process;
  }

  crash(): void {
    this.#isUp = false;
    this.isDone = false;
    this.handover?.leave();
    this.handover = undefined;
    if (this.world.flaws.isForgetful === true && this.world.chance(0.5)) this.#entry = this.#before;
    this.world.network.after(this.world.network.random() * 3000, () => this.boot());
  }

  /** Crashes now and then; whoever asks must then do nothing more. */
  #crashesNow(): boolean {
    if (!this.#isUp || this.#crashes >= CRASHES_MAX || !this.world.chance(CRASH)) return false;
    this.#crashes++;
    this.crash();
    return true;
  }

  #breaksNow(probability: number): boolean {
    if (this.#breaks >= BREAKS_MAX || !this.world.chance(probability)) return false;
    this.#breaks++;
    return true;
  }

  pause(ms: number): Promise<void> {
    return new Promise((resolve) => this.world.network.after(ms, resolve));
  }

  get state(): string {
    return this.#entry?.state ?? 'none';
  }

  /** Nothing is left to happen here. */
  get isOver(): boolean {
    const { state } = this;
    const isSettled = this.#entry?.isSettled === true || this.handover?.entry?.isSettled === true;
    return this.#isUp && (state === 'none' || state === 'active' || isSettled);
  }

  async read(): Promise<JournalEntry | undefined> {
    return this.#entry;
  }

  async write(entry: JournalEntry): Promise<void> {
    const process = this.#process;
    if (this.#crashesNow()) await never();
    await this.pause(this.world.network.random() * 5);
    if (!this.isAlive(process)) await never();
    const isBroken = this.#breaksNow(BROKEN_WRITE);
    if (!isBroken || this.world.chance(0.5)) {
      this.#before = this.#entry;
      this.#entry = entry;
      // Memory for the guest is taken before that is said.
      if (entry.state === 'reserved') this.guest = 'paused';
    }
    if (this.#crashesNow()) await never();
    if (isBroken) throw new Error('no space is left');
  }

  send(message: HandoverMessage | Memory): void {
    const { world } = this;
    const process = this.#process;
    if (!this.#isUp || this.#crashesNow()) return;
    const isMemory = message.word === 'memory';
    const copies = isMemory ? 1 : world.chance(LOSS) ? 0 : world.chance(REPEATED) ? 2 : 1;
    for (let copy = 0; copy < copies; copy++) {
      const delivered = isMemory ? message : reread(message as HandoverMessage);
      world.network.after(world.network.random() * DELAY_MS_MAX, () => {
        const peer = world.peerOf(this.name);
        if (!this.#isCut && peer.#isUp) peer.take(delivered);
      });
    }
    if (this.isAlive(process)) this.#crashesNow();
  }

  cut(): void {
    this.#isCut = true;
    this.handover?.connectionLost();
  }

  mend(): void {
    this.#isCut = false;
    this.handover?.connectionBack(this.#sender);
  }

  /** Goes on with what was recovered; the connection may have come back meanwhile. */
  protected goOn(handover: Handover | undefined): void {
    this.handover = handover;
    if (!this.#isCut) handover?.connectionBack(this.#sender);
  }

  readonly #sender = (message: HandoverMessage): void => this.send(message);

  async #hook(act: () => void): Promise<void> {
    const process = this.#process;
    if (this.#crashesNow()) await never();
    if (this.#breaksNow(BROKEN_HOOK)) throw new Error('the hypervisor says no');
    // What was asked of the guest may have come to be although who asked is gone.
    const isEarly = this.world.chance(0.5);
    if (isEarly) act();
    await this.pause(this.world.network.random() * 30);
    if (!isEarly && this.isAlive(process)) act();
    this.world.check();
    if (!this.isAlive(process) || this.#crashesNow()) await never();
  }

  protected options(): HandoverOptions<GuestHooks> {
    const { world } = this;
    const hooks: GuestHooks = {
      resume: () =>
        this.#hook(() => {
          if (this.guest === 'none') world.wrong.push('the source resumes what it has discarded');
          this.guest = 'running';
        }),
      discard: () =>
        this.#hook(() => {
          if (this.guest === 'running') world.wrong.push(`${this.name} discards what runs`);
          this.guest = 'none';
        }),
      start: () =>
        this.#hook(() => {
          if (this.guest === 'none') world.wrong.push('a guest is started that is not there');
          this.guest = 'running';
          world.hasRunThere = true;
        }),
      ...(world.chance(0.5) && { isRunning: async () => this.guest === 'running' }),
    };
    const { clock } = world.network;
    const send = this.#isCut ? undefined : this.#sender;
    return { journal: this, migration: MIGRATION, hooks, name: 'vm', clock, send };
  }
}

/** All of the guest, when it is paused. */
interface Memory {
  readonly word: 'memory';
  readonly attempt: number;
}

class SourceHost extends Host {
  protected override async live(process: number): Promise<void> {
    const recovered = (await recover(this.options())) as SourceHandover | undefined;
    if (!this.isAlive(process)) return;
    this.goOn(recovered);
    const result = await recovered?.result;
    const begun = (await this.read())?.attempt ?? 0;
    if (!this.isAlive(process)) return;
    const isOver = result?.guest === 'destination' || begun >= ATTEMPTS_MAX;
    if (isOver || this.world.isClosing) this.isDone = true;
    else await this.#attempt(begun + 1, process);
  }

  async #attempt(attempt: number, process: number): Promise<void> {
    const handover = new SourceHandover({ ...this.options(), attempt });
    this.handover = handover;
    try {
      await handover.begin();
      await this.pause(this.world.network.random() * 2000);
      if (!this.isAlive(process) || handover.entry?.state !== 'copying') throw new Error('aborted');
      this.guest = 'paused';
      this.send({ word: 'memory', attempt });
      const { guest } = await handover.commit();
      if (guest === 'source' && attempt < ATTEMPTS_MAX) throw new Error('again');
      this.isDone = this.isAlive(process);
    } catch (error) {
      // Aborted, or broken: both go on as after a crash.
      if (this.isAlive(process)) throw error;
    }
  }

  override take(message: HandoverMessage | Memory): void {
    if (message.word !== 'memory') this.handover?.receive(message);
  }
}

class DestinationHost extends Host {
  protected override async live(process: number): Promise<void> {
    const recovered = (await recover(this.options())) as DestinationHandover | undefined;
    if (!this.isAlive(process)) return;
    this.goOn(recovered);
    await recovered?.result;
  }

  override take(message: HandoverMessage | Memory): void {
    const { handover } = this;
    if (message.word === 'memory') {
      if (handover?.entry?.attempt !== message.attempt) return;
      (handover as DestinationHandover).ready().catch(() => {});
    } else if (message.word === 'reserve' && message.attempt !== handover?.entry?.attempt) {
      this.#reserve(message).catch(() => {});
    } else handover?.receive(message);
  }

  async #reserve({ attempt }: HandoverMessage): Promise<void> {
    const { handover } = this;
    if ((handover?.entry?.attempt ?? 0) > attempt) return;
    await handover?.abort('ERR_AGAIN', 'the source tries again');
    await handover?.result;
    const next = new DestinationHandover({ ...this.options(), attempt });
    if (this.handover !== handover) return;
    this.handover = next;
    this.#live(next, next.result);
    this.#live(next, next.reserve());
  }

  /** What fails ends the process. */
  #live(handover: DestinationHandover, work: Promise<unknown>): void {
    work.catch(() => {
      if (this.handover === handover) this.crash();
    });
  }
}

function never(): Promise<never> {
  return new Promise(() => {});
}

/** The message as the other side reads it. */
function reread(message: HandoverMessage): HandoverMessage {
  const { buffer, start, end } = encodeHandover(message, 8);
  return decodeHandover(buffer.subarray(start, end));
}
