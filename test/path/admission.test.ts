import { describe, expect, test } from 'vitest';
import { Admission, type Candidate, networkOf, Standing } from '../../src/path/admission.ts';
import {
  HANDSHAKES_MAX,
  KNOWN_SHARE,
  NETWORK_SHARE,
  SILENT_SHARE,
  SPEAKING_SHARE,
} from '../../src/path/limits.ts';
import { createPrng, integerBelow } from '../support/prng.ts';

interface Visitor extends Candidate {
  readonly number: number;
}

let count = 0;

function visitor(network: string, standing: Standing = Standing.Silent): Visitor {
  return { network, standing, slot: undefined, arrival: 0, number: count++ };
}

/** So many from one network, of one standing. */
function crowd(
  admission: Admission<Visitor>,
  size: number,
  { network = 'crowd', standing = Standing.Silent as Standing } = {},
): Visitor[] {
  return Array.from({ length: size }, () => {
    const one = visitor(network);
    expect(admission.enter(one)).toBeUndefined();
    admission.move(one, standing);
    return one;
  });
}

/** Lets `size` newcomers in. @returns Who had to go for them. */
function flood(
  admission: Admission<Visitor>,
  size: number,
  { networkOfNext = (): string => 'flood', standing = Standing.Silent as Standing } = {},
): Set<Visitor> {
  const gone = new Set<Visitor>();
  for (let left = size; left > 0; left--) {
    const one = visitor(networkOfNext());
    const victim = admission.enter(one);
    if (victim !== undefined) gone.add(victim);
    admission.move(one, standing);
  }
  return gone;
}

describe('Admission', () => {
  test('has shares that add up to its limit', () => {
    expect(SILENT_SHARE + SPEAKING_SHARE + KNOWN_SHARE).toBe(HANDSHAKES_MAX);
  });

  test('takes as many as its limit, whoever they are', () => {
    const admission = new Admission<Visitor>();
    crowd(admission, HANDSHAKES_MAX);
    expect(admission.size).toBe(HANDSHAKES_MAX);
  });

  test('lets the oldest of the largest network go for a newcomer', () => {
    const admission = new Admission<Visitor>();
    const [stranger] = crowd(admission, 1, { network: 'other' });
    const many = crowd(admission, HANDSHAKES_MAX - 1);
    const gone = flood(admission, 3, { networkOfNext: () => 'third' });
    expect([...gone]).toEqual(many.slice(0, 3));
    expect(gone.has(stranger!)).toBe(false);
    expect(admission.size).toBe(HANDSHAKES_MAX);
  });

  test('lets the oldest of all go where no network has more than its share', () => {
    const admission = new Admission<Visitor>();
    const first = crowd(admission, NETWORK_SHARE, { network: 'a session of many paths' });
    for (let left = HANDSHAKES_MAX - NETWORK_SHARE; left > 0; left--) {
      crowd(admission, 1, { network: `single ${left}` });
    }
    const gone = flood(admission, 2, { networkOfNext: () => 'another' });
    expect([...gone]).toEqual(first.slice(0, 2));
  });

  test('lets who is silent go before who speaks, and who speaks before who is known', () => {
    const admission = new Admission<Visitor>();
    const known = crowd(admission, KNOWN_SHARE + 10, { standing: Standing.Known });
    const speaking = crowd(admission, SPEAKING_SHARE + 10, { standing: Standing.Speaking });
    const silent = crowd(admission, HANDSHAKES_MAX - admission.size);
    expect(silent.length).toBeLessThan(SILENT_SHARE);
    const standing = Standing.Known;
    const first = flood(admission, 10, { standing });
    expect([...first]).toEqual(speaking.slice(0, 10));
    const second = flood(admission, 10, { standing, networkOfNext: () => 'crowd' });
    expect([...second]).toEqual(known.slice(0, 10));
  });

  test('lets who was refused go first', () => {
    const admission = new Admission<Visitor>();
    const members = crowd(admission, HANDSHAKES_MAX);
    admission.move(members[77]!, Standing.Leaving);
    expect([...flood(admission, 1)]).toEqual([members[77]]);
  });

  test('knows nobody who has left', () => {
    const admission = new Admission<Visitor>();
    const [one, other] = crowd(admission, 2);
    expect(admission.leave(one!)).toBe(true);
    expect(admission.leave(one!)).toBe(false);
    admission.move(one!, Standing.Known);
    expect(one!.standing).toBe(Standing.Silent);
    expect(admission.candidates()).toEqual([other]);
    expect(flood(admission, HANDSHAKES_MAX - 1).size).toBe(0);
  });
});

/** An honest newcomer among a flood: how many others arrive while it is at each standing. */
const HONEST_STEPS = [
  [Standing.Silent, 40],
  [Standing.Speaking, 80],
  [Standing.Known, 2000],
] as const;

/** Floods that an honest peer has to get through, with where it comes from itself. */
const FLOODS: readonly [string, () => (index: number) => string, Standing, string][] = [
  ['silent, from one network', () => () => 'evil', Standing.Silent, 'honest'],
  ['silent, from its own network', () => () => 'honest', Standing.Silent, 'honest'],
  ['silent, from many networks', () => (index) => `evil ${index}`, Standing.Silent, 'honest'],
  ['that speaks, from one network', () => () => 'evil', Standing.Speaking, 'honest'],
  ['that speaks, from its own network', () => () => 'honest', Standing.Speaking, 'honest'],
  ['that speaks, from many', () => (index) => `evil ${index}`, Standing.Speaking, 'honest'],
  ['that is known, from one network', () => () => 'evil', Standing.Known, 'honest'],
];

describe('Admission lets an honest peer through a flood', () => {
  test.each(FLOODS)('%s', (_what, makeNetwork, standing, home) => {
    const admission = new Admission<Visitor>();
    const networkAt = makeNetwork();
    let arrivals = 0;
    const networkOfNext = (): string => networkAt(arrivals++);
    flood(admission, 3000, { networkOfNext, standing });
    const honest = visitor(home);
    expect(admission.enter(honest)).not.toBe(honest);
    for (const [own, others] of HONEST_STEPS) {
      admission.move(honest, own);
      const gone = flood(admission, others, { networkOfNext, standing });
      expect(gone.has(honest), `at standing ${own}`).toBe(false);
    }
    expect(admission.leave(honest)).toBe(true);
  });

  test('with all sixteen paths of a session at once', () => {
    const admission = new Admission<Visitor>();
    flood(admission, 3000);
    const paths = Array.from({ length: NETWORK_SHARE }, () => visitor('honest'));
    for (const path of paths) expect(paths).not.toContain(admission.enter(path));
    const gone = flood(admission, 1000);
    for (const path of paths) expect(gone.has(path)).toBe(false);
  });
});

test.each([1, 2, 3, 4, 5])('Admission keeps its books, whatever happens: seed %i', (seed) => {
  const random = createPrng(seed);
  const admission = new Admission<Visitor>();
  const present = new Set<Visitor>();
  for (let step = 0; step < 20_000; step++) {
    const members = [...present];
    const chosen = members[integerBelow(random, Math.max(1, members.length))];
    const dice = random();
    if (dice < 0.6 || chosen === undefined) {
      const one = visitor(`network ${integerBelow(random, 30)}`);
      present.add(one);
      const victim = admission.enter(one);
      if (victim !== undefined) expect(present.delete(victim)).toBe(true);
    } else if (dice < 0.9) {
      admission.move(chosen, integerBelow(random, 4) as Standing);
    } else {
      present.delete(chosen);
      expect(admission.leave(chosen)).toBe(true);
    }
    if (step % 100 === 0) expect(new Set(admission.candidates())).toEqual(present);
    expect(admission.size).toBeLessThanOrEqual(HANDSHAKES_MAX);
  }
});

test.each([
  ['192.0.2.1', '192.0.2.1'],
  ['::ffff:192.0.2.1', '192.0.2.1'],
  ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2::/64'],
  ['2001:db8:1:2::', '2001:db8:1:2::/64'],
  ['2001:db8::6', '2001:db8::/64'],
  ['fe80::1%eth0', 'fe80::/64'],
  ['::1', '::/64'],
  ['', ''],
  ['what: is this', 'what: is this'],
])('networkOf(%s) is %s', (address, network) => {
  expect(networkOf(address)).toBe(network);
});
