import type { Manifest } from './manifest.ts';
import type { StripeTable } from './stripes.ts';

/** Which of what was put is there no more. */
export interface Losses {
  /** Whether an extent cannot be had where it was put. */
  readonly isGone: (extent: number) => boolean;
  /** Whether nothing that an intermediary holds counts any more. */
  readonly isLost: (intermediary: number) => boolean;
}

/**
 * Extents that are gone, and that their stripes cannot give: the parity is gone too, or another
 * extent of the stripe, or they are of no stripe.
 */
export function findUnmendable(
  manifest: Manifest,
  stripes: StripeTable,
  { isGone, isLost }: Losses,
): number[] {
  const unmendable: number[] = [];
  let hasGone = false;
  for (let number = 0; number < manifest.extents; number++) {
    const place = manifest.at(number);
    if (place === undefined || !isGone(number)) continue;
    hasGone = true;
    if (place.stripe === undefined) unmendable.push(number);
  }
  if (!hasGone) return unmendable;
  for (const { members, intermediary } of stripes.entries(manifest)) {
    const gone = members.filter(isGone);
    const isWhole = intermediary !== undefined && !isLost(intermediary);
    if (!isWhole || gone.length > 1) unmendable.push(...gone);
  }
  return unmendable.sort((one, other) => one - other);
}
