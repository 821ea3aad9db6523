// Requires: root for namespaces, /dev/net/tun, gcc.
import { existsSync } from 'node:fs';
import { expect, test } from 'vitest';
import { createPaths } from '../support/lab/netns.ts';
import { run, startProcess, waitUntil } from '../support/lab/processes.ts';

const DELAY_MS = 30;
const PORT = 7_701;
const BYTES = 4 * 1024 * 1024;

const ECHO = `
  const server = require('node:net').createServer((socket) => socket.pipe(socket));
  server.listen(${PORT}, () => console.log('listening'));
`;

/** Sends random bytes, compares what comes back, and writes how long a connect took. */
const COMPARE = `
  const { createHash, randomBytes } = require('node:crypto');
  const { connect } = require('node:net');
  const sha256 = (chunks) => {
    const hash = createHash('sha256');
    for (const chunk of chunks) hash.update(chunk);
    return hash.digest('hex');
  };
  const begin = performance.now();
  const socket = connect({ host: process.argv[1], port: ${PORT} }, () => {
    const connectMs = performance.now() - begin;
    const bytes = randomBytes(${BYTES});
    const chunks = [];
    socket.on('data', (chunk) => chunks.push(chunk));
    socket.on('end', () => {
      console.log(JSON.stringify({ connectMs, isEqual: sha256([bytes]) === sha256(chunks) }));
    });
    socket.end(bytes);
  });
`;

test('a delayed path takes its time both ways and changes no byte', async () => {
  await using network = await createPaths({ count: 2, delayMs: [0, DELAY_MS] });
  await using server = startProcess([process.execPath, '-e', ECHO], {
    namespace: network.destination,
  });
  await waitUntil('the echo to listen', () => server.stdout().includes('listening'), {
    timeoutMs: 10_000,
  });
  const exchange = async (index: number) => {
    const { destinationAddress } = network.paths[index]!;
    const { stdout } = await run([process.execPath, '-e', COMPARE, destinationAddress], {
      namespace: network.source,
      timeoutMs: 30_000,
    });
    return JSON.parse(stdout) as { connectMs: number; isEqual: boolean };
  };
  expect((await exchange(0)).isEqual).toBe(true);
  const { connectMs, isEqual } = await exchange(1);
  expect(isEqual).toBe(true);
  expect(connectMs).toBeGreaterThanOrEqual(2 * DELAY_MS - 1);
});

test('a delayed path goes with its network', async () => {
  const network = await createPaths({ count: 1, delayMs: [DELAY_MS] });
  await run(['ip', '-n', network.source, 'link', 'show', 'path1']);
  await network[Symbol.asyncDispose]();
  expect(existsSync(`/run/netns/${network.source}`)).toBe(false);
});
