import { realisticInitramfs } from './binaries.ts';
import { type Guest, type GuestOptions, startGuest } from './guest.ts';

/**
 * What a realistic guest does all the time: compiles C, or serves Redis to a client.
 *
 * Like the guest of `workload.c` it writes `READY` and `TICK counter errors`; it cannot check
 * its memory, so errors are programs that failed, and `Guest.complaints()` tells of its kernel.
 */
export type RealisticKind = 'compile' | 'redis';

/** Starts a guest of 1 GiB with a Debian in its memory; `scripts/setup bench` makes it. */
export async function startRealisticGuest(
  kind: RealisticKind,
  options: Omit<GuestOptions, 'image' | 'workload'> = {},
): Promise<Guest> {
  const image = { initramfs: realisticInitramfs(), kernelWords: `guest=${kind}` };
  return startGuest({ memoryMiB: 1024, ...options, image });
}
