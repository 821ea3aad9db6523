import { measureIperf } from '../../test/support/lab/iperf.ts';
import type { LabNetwork } from '../../test/support/lab/netns.ts';

/** What one iperf3 stream gets on each path while nothing else runs, Mb/s. */
export async function plainRates(network: LabNetwork, seconds: number): Promise<number[]> {
  const rates: number[] = [];
  for (const pathIndex of network.paths.keys()) {
    const { mbit } = await measureIperf(network, { pathIndex, seconds });
    rates.push(mbit);
  }
  return rates;
}

/** Their sum. */
export function sumOf(rates: readonly number[]): number {
  return rates.reduce((sum, rate) => sum + rate, 0);
}
