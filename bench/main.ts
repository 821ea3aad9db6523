/*
 * node .build/bench/main.js [trial…] [--smoke] [--pairs N]
 *
 * Each trial runs in a process of its own, so that none warms up another.
 */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { describeMachine, type Trial } from './harness.ts';
import { hostilePeers } from './trials/hostile-peers.ts';
import { kernels } from './trials/kernels.ts';
import { loopbackPages } from './trials/loopback-pages.ts';
import { memoryBound } from './trials/memory-bound.ts';
import { onePath } from './trials/one-path.ts';
import { realGuests } from './trials/real-guests.ts';
import { tlsCost } from './trials/tls-cost.ts';
import { transportDelay } from './trials/transport-delay.ts';
import { transportLive } from './trials/transport-live.ts';
import { transportLoss } from './trials/transport-loss.ts';
import { transportOnePath } from './trials/transport-one-path.ts';
import { transportPaths } from './trials/transport-paths.ts';
import { twoPaths } from './trials/two-paths.ts';

const TRIALS: readonly Trial[] = [
  kernels,
  loopbackPages,
  memoryBound,
  hostilePeers,
  onePath,
  twoPaths,
  tlsCost,
  realGuests,
  transportOnePath,
  transportPaths,
  transportLoss,
  transportLive,
  transportDelay,
];

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    smoke: { type: 'boolean', default: false },
    pairs: { type: 'string', default: '5' },
    inside: { type: 'boolean', default: false },
  },
});

const chosen = positionals.length === 0 ? TRIALS : positionals.map(find);

function find(name: string): Trial {
  const trial = TRIALS.find((each) => each.name === name);
  if (trial === undefined) {
    throw new Error(`There is no trial "${name}": ${TRIALS.map((each) => each.name).join(', ')}`);
  }
  return trial;
}

if (values.inside) {
  const trial = chosen[0]!;
  const pairs = values.smoke ? 1 : Number(values.pairs);
  for (const line of await trial.run({ isSmoke: values.smoke, pairs })) console.log(line);
} else {
  console.log(describeMachine());
  let failed = 0;
  for (const trial of chosen) {
    console.log(`\n${trial.name}: ${trial.question}`);
    const words = [fileURLToPath(import.meta.url), trial.name, '--inside', '--pairs', values.pairs];
    if (values.smoke) words.push('--smoke');
    const { status } = spawnSync(process.execPath, words, { stdio: 'inherit' });
    if (status !== 0) failed++;
  }
  process.exitCode = failed === 0 ? 0 : 1;
}
