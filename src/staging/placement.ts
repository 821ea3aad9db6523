/** What placement knows of an intermediary. */
export interface PlaceState {
  /** Whether it may be used: reached, not lost, and none of those that must be avoided. */
  readonly isUsable: boolean;
  /** Whether another extent may be on its way to it. */
  readonly hasSlot: boolean;
  readonly inFlightBytes: number;
  /** Bytes per second as measured; 0 if nothing is known yet. */
  readonly bytesPerSecond: number;
  readonly freeBytes: number;
}

/** Nowhere to place an extent: not now, or not until memory is freed. */
export const NO_PLACE_NOW = -1;
export const NO_PLACE = -2;

/**
 * Chooses the intermediary for the next extent.
 *
 * The one where it is done first, of those with a slot; but none where it is done later than all
 * that remains would be if everybody else worked on: then it is better to wait.
 *
 * @param remainingBytes What is still to be placed, this extent included; as far as it is known.
 * @returns Its index; NO_PLACE_NOW if waiting for a slot is best; NO_PLACE if none has the memory.
 */
export function choosePlace(
  places: readonly PlaceState[],
  { bytes, remainingBytes }: { readonly bytes: number; readonly remainingBytes: number },
): number {
  const known = Math.max(0, ...places.map((place) => place.bytesPerSecond));
  let best = NO_PLACE;
  let bestMs = Number.POSITIVE_INFINITY;
  let leastMs = Number.POSITIVE_INFINITY;
  let waitingBytes = remainingBytes;
  let rates = 0;
  for (const [index, place] of places.entries()) {
    if (!place.isUsable || place.freeBytes < bytes) continue;
    // Of whom nothing is known, the best is hoped.
    const rate = place.bytesPerSecond || known || 1;
    const doneMs = ((place.inFlightBytes + bytes) * 1000) / rate;
    rates += rate;
    waitingBytes += place.inFlightBytes;
    leastMs = Math.min(leastMs, doneMs);
    if (best === NO_PLACE) best = NO_PLACE_NOW;
    if (place.hasSlot && doneMs < bestMs) [best, bestMs] = [index, doneMs];
  }
  const allMs = (waitingBytes * 1000) / rates;
  return best >= 0 && bestMs > leastMs && bestMs > allMs ? NO_PLACE_NOW : best;
}
