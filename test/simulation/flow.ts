import { HEADER_BYTES } from '../../src/frame/limits.ts';
import type { IncomingMessage, Lane } from '../../src/session/lane.ts';
import type { SimulatedNetwork } from '../support/network.ts';
import { createPrng, exactRandomBytes } from '../support/prng.ts';

/** What payloads are cut out of: two that differ in length or place differ in their bytes. */
const BYTES: Uint8Array = exactRandomBytes(createPrng(1), 64 * 1024);
const PAYLOAD_BYTES_MAX = 8000;

/** More than the window, so that credit runs out. */
const QUEUED_BYTES_MAX = 256 * 1024;

/** One lane's traffic in one direction, with what is known of it on both sides. */
export class Flow {
  readonly name: string;
  readonly #network: SimulatedNetwork;
  readonly #wrong: string[];
  readonly #isOrderedLane: boolean;
  readonly #total: number;
  readonly #sent: { payload: Uint8Array; epoch: number }[] = [];
  readonly #delivered = new Set<number>();
  /** Every sequence below was delivered. */
  #base = 0;
  #epoch = 0;
  #acked = 0;
  #lane: Lane | undefined;
  readonly #free: Uint8Array[] = [];

  constructor(name: string, network: SimulatedNetwork, wrong: string[]) {
    this.name = name;
    this.#network = network;
    this.#wrong = wrong;
    this.#isOrderedLane = network.random() < 0.4;
    this.#total = 1 + Math.floor(network.random() * 80);
  }

  get isDone(): boolean {
    return this.#acked === this.#total && this.#base === this.#total;
  }

  get progress(): string {
    return `${this.name} sent ${this.#sent.length} acked ${this.#acked} delivered ${this.#base}`;
  }

  send(lane: Lane): void {
    this.#lane = lane;
    lane.onDrain = () => this.#sendMore();
    this.#sendMore();
  }

  #sendMore(): void {
    const lane = this.#lane!;
    const { random } = this.#network;
    while (this.#sent.length < this.#total && lane.queuedBytes < QUEUED_BYTES_MAX) {
      const sequence = this.#sent.length;
      const isLast = sequence === this.#total - 1;
      const isOrdered = this.#isOrderedLane || random() < 0.1;
      const length = Math.floor(random() ** 3 * PAYLOAD_BYTES_MAX);
      const begins = random() < 0.1;
      if (begins) lane.beginEpoch();
      const buffer = this.#free.pop() ?? new Uint8Array(HEADER_BYTES + PAYLOAD_BYTES_MAX);
      const start = HEADER_BYTES;
      const from = Math.floor(random() * (BYTES.length - length));
      const payload = BYTES.subarray(from, from + length);
      buffer.set(payload, start);
      const isAlone = isOrdered || isLast;
      const wasAlone = this.#sent.length > 0 && this.#isAlone;
      if (isAlone || begins || wasAlone) this.#epoch = sequence;
      this.#isAlone = isAlone;
      this.#sent.push({ payload, epoch: this.#epoch });
      const onAcked = (): void => {
        this.#acked++;
        if (this.#free.includes(buffer)) this.#wrong.push(`${this.name}: ${sequence} acked twice`);
        buffer.fill(0xee);
        this.#free.push(buffer);
      };
      const given = lane.send({ buffer, start, end: start + length, isOrdered, isLast, onAcked });
      if (given !== sequence) this.#wrong.push(`${this.name}: sequence ${given} for ${sequence}`);
    }
  }

  #isAlone = false;

  receive(message: IncomingMessage): void {
    const { sequence, payload, isLast } = message;
    const sent = this.#sent[sequence];
    if (sent === undefined) {
      this.#wrong.push(`${this.name}: ${sequence} was never sent`);
      return;
    }
    if (this.#delivered.has(sequence)) this.#wrong.push(`${this.name}: ${sequence} came twice`);
    if (this.#base < sent.epoch) {
      this.#wrong.push(`${this.name}: ${sequence} of ${sent.epoch} came before ${this.#base}`);
    }
    if (Buffer.compare(payload, sent.payload) !== 0) {
      this.#wrong.push(`${this.name}: ${sequence} has other bytes`);
    }
    if (isLast !== (sequence === this.#total - 1)) this.#wrong.push(`${this.name}: wrong end`);
    this.#delivered.add(sequence);
    while (this.#delivered.has(this.#base)) this.#base++;
    const { random } = this.#network;
    if (random() < 0.5) message.release();
    else this.#network.after(random() * 300, () => message.release());
  }
}
