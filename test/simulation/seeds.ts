/* How many worlds are simulated, and from which seed on */

/** Seeds of one test. */
export const GROUP = 250;

/** With a quarter of them again for what is lost for good, 10,000. */
const SEEDS = Number(process.env['PAGELANE_SIMULATION_SEEDS'] ?? 8000);
const FROM = Number(process.env['PAGELANE_SIMULATION_FROM'] ?? 1);

/**
 * The first seed of each group. A number that is no multiple of the group's size is rounded up.
 *
 * @param share Part of the seeds that is wanted, > 0.
 */
export function groups(share = 1): number[] {
  const count = Math.ceil((SEEDS * share) / GROUP);
  return Array.from({ length: count }, (_, index) => FROM + index * GROUP);
}
