/**
 * A fixed number of equal buffers, made when first needed and used again and again.
 *
 * What was given back last is taken first: it is the likeliest to be in the processor's cache.
 */
export class SlotPool {
  readonly slotBytes: number;
  readonly #countMax: number;
  readonly #idle: Uint8Array[] = [];
  #made = 0;

  constructor({ slotBytes, countMax }: { slotBytes: number; countMax: number }) {
    this.slotBytes = slotBytes;
    this.#countMax = countMax;
  }

  /** Slots that `take` would give. */
  get freeCount(): number {
    return this.#idle.length + this.#countMax - this.#made;
  }

  /** A slot with any content; undefined when all are out. */
  take(): Uint8Array | undefined {
    const slot = this.#idle.pop();
    if (slot !== undefined) return slot;
    if (this.#made === this.#countMax) return undefined;
    this.#made++;
    return new Uint8Array(new ArrayBuffer(this.slotBytes));
  }

  /** Takes a slot back. */
  give(slot: Uint8Array): void {
    this.#idle.push(slot);
  }
}
