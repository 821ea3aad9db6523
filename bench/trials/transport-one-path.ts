import { measureIperf } from '../../test/support/lab/iperf.ts';
import { createPaths, type LabNetwork } from '../../test/support/lab/netns.ts';
import { alternate, type Figures, stateComparison, type Trial } from '../harness.ts';
import { transfer } from '../support/transfer.ts';

const FIGURES = ['gigabytesPerSecond', 'cpuSecondsPerGB'];

/** A session over one path that nothing shapes, beside one iperf3 stream. */
export const transportOnePath: Trial = {
  name: 'transport-one-path',
  question: 'How fast do pages go from memory to memory over one unshaped path, beside iperf3?',
  async run({ isSmoke, pairs }) {
    await using network = await createPaths({ count: 1 });
    const seconds = isSmoke ? 1 : 5;
    const lines: string[] = [];
    for (const isSecure of [false, true]) {
      const comparison = await alternate(
        pairs,
        () => throughSession(network, seconds, isSecure),
        () => throughIperf(network, seconds),
        { warmUp: !isSmoke },
      );
      const title = isSecure
        ? 'TLS, with checksums ÷ iperf3 without TLS'
        : 'clear text, with checksums ÷ iperf3 (targets ≥ 0.85, ≤ 1.6)';
      lines.push(...stateComparison(title, comparison, FIGURES));
    }
    return lines;
  },
};

async function throughSession(
  network: LabNetwork,
  seconds: number,
  isSecure: boolean,
): Promise<Figures> {
  const { bytes, durationMs, cpuSeconds } = await transfer(network, { seconds, isSecure });
  return {
    gigabytesPerSecond: bytes / 1e6 / durationMs,
    cpuSecondsPerGB: cpuSeconds / (bytes / 1e9),
  };
}

async function throughIperf(network: LabNetwork, seconds: number): Promise<Figures> {
  const result = await measureIperf(network, { seconds });
  const gigabytesPerSecond = result.mbit / 8000;
  const cpuShare = (result.sourceCpuPercent + result.destinationCpuPercent) / 100;
  return { gigabytesPerSecond, cpuSecondsPerGB: cpuShare / gigabytesPerSecond };
}
