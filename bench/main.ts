/*
 * node .build/bench/main.js [trial…] [--smoke] [--pairs N] [--only PART]
 *   [--switchover-factor F]
 *
 * Each trial runs in a process of its own, so that none warms up another.
 */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { describeMachine, type Trial } from './harness.ts';
import { batchCompression } from './trials/batch-compression.ts';
import { bitmapWalk } from './trials/bitmap-walk.ts';
import { dirtyLog } from './trials/dirty-log.ts';
import { embedded } from './trials/embedded.ts';
import { eviction } from './trials/eviction.ts';
import { fastLink } from './trials/fast-link.ts';
import { firstPass } from './trials/first-pass.ts';
import { hostileMix } from './trials/hostile-mix.ts';
import { hostilePeers } from './trials/hostile-peers.ts';
import { kernels } from './trials/kernels.ts';
import { loopbackPages } from './trials/loopback-pages.ts';
import { memoryBound } from './trials/memory-bound.ts';
import { onePath } from './trials/one-path.ts';
import { pageRequests } from './trials/page-requests.ts';
import { realGuests } from './trials/real-guests.ts';
import { resentPages } from './trials/resent-pages.ts';
import { stagingLink } from './trials/staging-link.ts';
import { stagingRedis } from './trials/staging-redis.ts';
import { threads } from './trials/threads.ts';
import { tlsCost } from './trials/tls-cost.ts';
import { transportDelay } from './trials/transport-delay.ts';
import { transportLive } from './trials/transport-live.ts';
import { transportLoss } from './trials/transport-loss.ts';
import { transportOnePath } from './trials/transport-one-path.ts';
import { transportPaths } from './trials/transport-paths.ts';
import { twoPaths } from './trials/two-paths.ts';
import { warmStart } from './trials/warm-start.ts';

const TRIALS: readonly Trial[] = [
  kernels,
  bitmapWalk,
  threads,
  dirtyLog,
  firstPass,
  embedded,
  warmStart,
  loopbackPages,
  memoryBound,
  hostilePeers,
  onePath,
  twoPaths,
  tlsCost,
  realGuests,
  batchCompression,
  hostileMix,
  fastLink,
  resentPages,
  transportOnePath,
  transportPaths,
  transportLoss,
  transportLive,
  transportDelay,
  stagingRedis,
  stagingLink,
  eviction,
  pageRequests,
];

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    smoke: { type: 'boolean', default: false },
    pairs: { type: 'string', default: '5' },
    only: { type: 'string' },
    'switchover-factor': { type: 'string', default: '1' },
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
  const { smoke: isSmoke, only } = values;
  const switchoverFactor = Number(values['switchover-factor']);
  const lines = await trial.run({ isSmoke, pairs, only, switchoverFactor });
  if (lines.length === 0) throw new Error(`${trial.name} has no part "${only}"`);
  for (const line of lines) console.log(line);
} else {
  console.log(describeMachine());
  let failed = 0;
  for (const trial of chosen) {
    console.log(`\n${trial.name}: ${trial.question}`);
    const words = [fileURLToPath(import.meta.url), trial.name, '--inside', '--pairs', values.pairs];
    if (values.smoke) words.push('--smoke');
    if (values.only !== undefined) words.push('--only', values.only);
    words.push('--switchover-factor', values['switchover-factor']);
    const { status } = spawnSync(process.execPath, words, { stdio: 'inherit' });
    if (status !== 0) failed++;
  }
  process.exitCode = failed === 0 ? 0 : 1;
}
