import { describe, expect, test } from 'vitest';
import type { Act } from '../../src/migration/commit.ts';
import { explore, RULES, type Rules, type World } from './commit-world.ts';

/** Every state that can be reached with two attempts, and two crashes on each side. */
const STATES = 130_000;

/** A table that differs in what an event does in a state. */
function changed(
  side: 'source' | 'destination',
  state: string,
  events: Readonly<Record<string, readonly Act[]>>,
): Rules {
  const table = RULES[side];
  return { ...RULES, [side]: { ...table, [state]: { ...table[state], ...events } } };
}

/** The destination's host may take the answer with it, if the source has asked or is about to. */
function isBeyondHelp({ isHostDead, source }: World): boolean {
  const isUndecided = source.state === 'committed' || source.acts.includes('journal committed');
  return isHostDead && (isUndecided || source.state === 'released');
}

describe('the table of the hand-over, whatever is lost, late, repeated or crashes', () => {
  test('never has two copies run or none left, and always has a way to one that runs', () => {
    const { states, wrong, stuck } = explore(RULES);
    expect(wrong).toBeUndefined();
    expect(stuck.filter((world) => !isBeyondHelp(world))).toEqual([]);
    expect(states).toBeGreaterThan(STATES);
  });
});

const RESUMES = ['journal aborted', 'send abort', 'call resume', 'settle'] as const;
const GIVES_UP = ['journal aborted', 'send aborted', 'call discard', 'settle'] as const;

/** Rules that look as if they would do, and what comes of them. */
const WRONG: readonly (readonly [string, Rules, string])[] = [
  [
    'a destination that starts as soon as all is there',
    changed('destination', 'reserved', {
      ready: ['journal ready', 'send ready', 'call start', 'journal active', 'send active'],
    }),
    'two run|the source runs what ran',
  ],
  [
    'a source that committed, waits, and resumes',
    changed('source', 'committed', { abort: RESUMES }),
    'two run|the source runs what ran',
  ],
  [
    'a source that committed, crashes, and resumes',
    changed('source', 'committed', { restart: RESUMES }),
    'two run|the source runs what ran',
  ],
  [
    'a start before "activating" is in the journal',
    changed('destination', 'ready', {
      'got commit': ['call start', 'journal activating', 'journal active', 'send active'],
    }),
    'a copy that ran was discarded|two run|the source runs what ran',
  ],
  [
    'a start without "activating"',
    changed('destination', 'ready', {
      'got commit': ['call start', 'journal active', 'send active'],
    }),
    'a copy that ran was discarded|two run|the source runs what ran',
  ],
  [
    'a commit that is sent before it is in the journal',
    changed('source', 'copying', { commit: ['send commit', 'journal committed'] }),
    'two run|the source runs what ran',
  ],
  [
    'a source that discards when it commits',
    changed('source', 'copying', { commit: ['journal committed', 'send commit', 'call discard'] }),
    'lost',
  ],
  [
    'a source that discards when the destination is ready',
    changed('source', 'committed', { 'got ready': ['send commit', 'call discard'] }),
    'lost',
  ],
  [
    'a source that believes the messages of another attempt',
    { ...RULES, isSame: (one, other) => one.migration === other.migration },
    'two run|the source runs what ran',
  ],
  [
    'a journal that is replaced before it is over',
    { ...RULES, whyNotReplaced: () => undefined },
    'two run|the source runs what ran|lost',
  ],
  [
    'a destination that gives up after it was about to start',
    changed('destination', 'activating', { restart: GIVES_UP }),
    'a copy that ran was discarded|two run|the source runs what ran',
  ],
  [
    'a destination that says "active" before it starts',
    changed('destination', 'ready', {
      'got commit': ['journal activating', 'send active', 'call start', 'journal active'],
    }),
    'lost',
  ],
  [
    'a destination that takes "activating" for "active" after a crash',
    changed('destination', 'activating', { restart: ['journal active', 'send active'] }),
    'lost',
  ],
  [
    'a destination that says "aborted" and keeps the way open',
    changed('destination', 'ready', { abort: ['send aborted'] }),
    'two run|the source runs what ran',
  ],
];

describe('wrong rules are found out', () => {
  test.each(WRONG)('%s', (_, rules, what) => {
    const { wrong } = explore(rules);
    expect(wrong?.what).toMatch(new RegExp(what));
    expect(wrong?.how.length).toBeGreaterThan(5);
  });

  /** Rules that do no harm, but leave the guest paused. */
  const STUCK: readonly (readonly [string, Rules])[] = [
    [
      'a source that does not hear "aborted" when it has committed',
      changed('source', 'committed', { 'got aborted': [] }),
    ],
    [
      'a destination that forgets about the guest when it crashes while starting it',
      changed('destination', 'activating', { restart: [] }),
    ],
    [
      'a destination that lets no later attempt in',
      { ...RULES, isSame: (one, other) => isSameAndFirst(one, other) },
    ],
  ];
  const isSameAndFirst: Rules['isSame'] = (one, other) =>
    RULES.isSame(one, other) && other.attempt === 1;

  test.each(STUCK)('%s', (_, rules) => {
    const { wrong, stuck } = explore(rules);
    expect(wrong).toBeUndefined();
    expect(stuck.filter((world) => !isBeyondHelp(world))).not.toEqual([]);
  });

  /** Rules that rest upon another one: each does no harm as long as the other holds. */
  test.each([
    [
      'an abort that is heeded when it is too late is never sent then',
      changed('destination', 'active', { 'got abort': GIVES_UP }),
    ],
    [
      'a commit that is heeded before all is there is never sent then',
      changed('destination', 'reserved', { 'got commit': ['journal activating', 'call start'] }),
    ],
  ])('%s', (_, rules) => {
    expect(explore(rules).wrong).toBeUndefined();
  });
});
