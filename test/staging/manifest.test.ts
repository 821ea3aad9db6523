import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { RamLayout } from '../../src/page/block.ts';
import {
  ENTRIES_BYTES_MAX,
  EXTENT_BYTES_MAX,
  EXTENT_RUNS_MAX,
  EXTENTS_AHEAD_MAX,
  EXTENTS_MAX,
  INTERMEDIARIES_MAX,
} from '../../src/staging/limits.ts';
import { type ExtentEntry, Manifest, type ManifestEntry } from '../../src/staging/manifest.ts';
import { decodeEntries, EntryWriter, encodeEntry } from '../../src/staging/manifest-codec.ts';

const PAGES = 1000;
const layout: RamLayout = {
  pageBits: 12,
  hasFooter: false,
  sectionId: 0,
  blocks: [
    { name: 'ram', usedBytes: PAGES * 4096 },
    { name: 'vga', usedBytes: 10 * 4096 },
  ],
};

function extent(fields: Partial<ExtentEntry> = {}): ExtentEntry {
  return {
    kind: 'extent',
    number: 0,
    intermediary: 0,
    bytes: 1000,
    block: 0,
    runs: [{ first: 5, count: 3 }],
    stripe: undefined,
    ...fields,
  };
}

function codeOf(act: () => unknown): string {
  try {
    act();
    return 'none';
  } catch (cause) {
    return (cause as { code?: string }).code ?? String(cause);
  }
}

describe('a manifest', () => {
  test('knows where every page is, as a map does that says it page by page', () => {
    const step = fc.record({
      first: fc.nat(PAGES - 1),
      gaps: fc.array(fc.tuple(fc.nat(9), fc.integer({ min: 1, max: 9 })), {
        minLength: 1,
        maxLength: 9,
      }),
      removes: fc.option(fc.nat(30)),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        const manifest = new Manifest(layout);
        const naive = new Map<number, number>();
        for (const [number, { first, gaps, removes }] of steps.entries()) {
          let at = first;
          const runs = gaps.map(([gap, count]) => {
            const run = { first: at + gap, count };
            at += gap + count;
            return run;
          });
          const pages = runs.flatMap((run) =>
            Array.from({ length: run.count }, (_, index) => run.first + index),
          );
          const isRight = at <= PAGES && pages.every((page) => !naive.has(page));
          const code = codeOf(() => manifest.add(extent({ number, runs })));
          expect(code).toBe(isRight ? 'none' : 'ERR_MANIFEST_PAGE');
          if (isRight) for (const page of pages) naive.set(page, number);
          if (removes !== null) {
            manifest.remove(removes);
            for (const [page, of] of naive) if (of === removes) naive.delete(page);
          }
        }
        expect(manifest.pages).toBe(naive.size);
        for (let page = 0; page < PAGES; page++) {
          expect(manifest.find(0, page)).toBe(naive.get(page));
        }
        for (let number = 0; number < steps.length; number++) {
          const listed = manifest
            .pagesOf(number)
            .flatMap(({ first, count }) => Array.from({ length: count }, (_, at) => first + at));
          const wanted = [...naive].filter(([, of]) => of === number).map(([page]) => page);
          expect(listed).toEqual(wanted.sort((one, other) => one - other));
        }
      }),
      { numRuns: 100 },
    );
  });

  const wrong: [string, Partial<ExtentEntry>, string][] = [
    ['a number beyond all', { number: EXTENTS_MAX }, 'ERR_MANIFEST_EXTENT'],
    ['an intermediary beyond all', { intermediary: INTERMEDIARIES_MAX }, 'ERR_MANIFEST_EXTENT'],
    ['too few bytes', { bytes: 16 }, 'ERR_MANIFEST_EXTENT'],
    ['too many bytes', { bytes: EXTENT_BYTES_MAX + 1 }, 'ERR_MANIFEST_EXTENT'],
    ['a block that is not', { block: 2 }, 'ERR_MANIFEST_EXTENT'],
    ['no page', { runs: [] }, 'ERR_MANIFEST_EXTENT'],
    ['half a page', { runs: [{ first: 0.5, count: 1 }] }, 'ERR_MANIFEST_PAGE'],
    ['a run of none', { runs: [{ first: 0, count: 0 }] }, 'ERR_MANIFEST_PAGE'],
    ['a page behind the end', { runs: [{ first: PAGES - 1, count: 2 }] }, 'ERR_MANIFEST_PAGE'],
    [
      'a page of a smaller block',
      { block: 1, runs: [{ first: 10, count: 1 }] },
      'ERR_MANIFEST_PAGE',
    ],
    [
      'a page twice',
      {
        runs: [
          { first: 1, count: 3 },
          { first: 3, count: 1 },
        ],
      },
      'ERR_MANIFEST_PAGE',
    ],
  ];

  test.each(wrong)('%s is refused, and nothing has changed', (_, fields, code) => {
    const manifest = new Manifest(layout);
    expect(codeOf(() => manifest.add(extent(fields)))).toBe(code);
    expect(manifest.pages).toBe(0);
    expect(manifest.extents).toBe(0);
  });

  test('a number is used once, also of an extent that is void', () => {
    const manifest = new Manifest(layout);
    manifest.add(extent());
    manifest.remove(0);
    expect(manifest.at(0)).toBeUndefined();
    expect(codeOf(() => manifest.add(extent()))).toBe('ERR_MANIFEST_EXTENT');
    manifest.add(extent({ number: 1 }));
    expect(manifest.find(0, 6)).toBe(1);
  });

  test('a number far ahead of all before it is refused: memory follows what is told', () => {
    const manifest = new Manifest(layout);
    const code = (number: number): string => codeOf(() => manifest.add(extent({ number })));
    expect(code(EXTENTS_AHEAD_MAX)).toBe('ERR_MANIFEST_EXTENT');
    expect(code(EXTENTS_AHEAD_MAX - 1)).toBe('none');
    manifest.remove(EXTENTS_AHEAD_MAX - 1);
    // Every page may come twice, and no more.
    expect(code(2 * (PAGES + 10) + EXTENTS_AHEAD_MAX)).toBe('ERR_MANIFEST_EXTENT');
    expect(code(2 * (PAGES + 10) + EXTENTS_AHEAD_MAX - 1)).toBe('none');
  });

  test('pages that came straight from the source are known, and come once', () => {
    const manifest = new Manifest(layout);
    manifest.add(extent({ runs: [{ first: 5, count: 3 }] }));
    const number = manifest.addDirect(0, [{ first: 8, count: 2 }]);
    expect(number).toBeGreaterThanOrEqual(EXTENTS_MAX);
    expect(manifest.addDirect(1, [{ first: 9, count: 1 }])).not.toBe(number);
    expect([manifest.find(0, 7), manifest.find(0, 8), manifest.find(0, 10)]).toEqual([
      0,
      number,
      undefined,
    ]);
    expect([...manifest.entries()].map((entry) => entry.number)).toEqual([0]);
    for (const run of [
      { first: 7, count: 1 },
      { first: 9, count: 2 },
      { first: PAGES, count: 1 },
      { first: 20, count: 0 },
    ]) {
      expect(codeOf(() => manifest.addDirect(0, [run]))).toBe('ERR_MANIFEST_PAGE');
    }
    const staged = extent({ number: 1, runs: [{ first: 9, count: 1 }] });
    expect(codeOf(() => manifest.add(staged))).toBe('ERR_MANIFEST_PAGE');
    expect(manifest.pages).toBe(6);
  });

  test('pages further apart than an extent may span are refused', () => {
    const blocks = [{ name: 'ram', usedBytes: 2 ** 31 }];
    const manifest = new Manifest({ ...layout, blocks });
    const runs = [
      { first: 3, count: 1 },
      { first: 65_538, count: 1 },
    ];
    manifest.add(extent({ runs }));
    const far = [runs[0]!, { first: 65_539, count: 1 }].map(({ first }) => ({
      first: first + 9,
      count: 1,
    }));
    expect(codeOf(() => manifest.add(extent({ number: 1, runs: far })))).toBe('ERR_MANIFEST_PAGE');
  });
});

describe('entries as bytes', () => {
  const number = fc.nat(EXTENTS_MAX - 1);
  const runs = fc.array(fc.tuple(fc.nat(1e9), fc.integer({ min: 1, max: 60_000 })), {
    minLength: 1,
    maxLength: 20,
  });
  const entry: fc.Arbitrary<ManifestEntry> = fc.oneof(
    fc.record({
      kind: fc.constant('extent' as const),
      number,
      intermediary: fc.nat(63),
      bytes: fc.integer({ min: 17, max: EXTENT_BYTES_MAX }),
      block: fc.nat(4095),
      runs: runs.map((gaps) => {
        let at = 0;
        return gaps.map(([gap, count]) => {
          const first = at + gap;
          at = first + count;
          return { first, count };
        });
      }),
      stripe: fc.option(number, { nil: undefined }),
    }),
    fc.record({
      kind: fc.constant('parity' as const),
      stripe: number,
      intermediary: fc.option(fc.nat(63), { nil: undefined }),
      members: fc.array(number, { maxLength: 63 }),
    }),
    fc.record({ kind: fc.constant('void' as const), extents: fc.array(number, { maxLength: 50 }) }),
  );

  test('are read as they were written', () => {
    fc.assert(
      fc.property(fc.array(entry, { maxLength: 50 }), (entries) => {
        const writer = new EntryWriter();
        for (const each of entries) expect(writer.add(each)).toBe(true);
        expect(decodeEntries(writer.take())).toEqual(entries);
        expect(writer.isEmpty).toBe(true);
      }),
      { numRuns: 200 },
    );
  });

  test('a message has room for so many, and no more', () => {
    const writer = new EntryWriter();
    let count = 0;
    while (writer.add(extent({ number: count }))) count++;
    const bytes = writer.take();
    expect(bytes.length).toBeLessThanOrEqual(ENTRIES_BYTES_MAX);
    expect(decodeEntries(bytes)).toHaveLength(count);
  });

  test('the longest extent there may be has room', () => {
    const places = Array.from({ length: EXTENT_RUNS_MAX }, (_, at) => 2 ** 41 + 2 * at);
    const runs = places.map((first) => ({ first, count: 1 }));
    const longest = extent({ number: EXTENTS_MAX - 1, runs });
    expect(decodeEntries(encodeEntry(longest))).toEqual([longest]);
    const longer = extent({ runs: [...runs, { first: 2 ** 42, count: 1 }] });
    expect(codeOf(() => decodeEntries(encodeEntry(longer)))).toBe('ERR_MANIFEST_FORMAT');
  });

  test('anything else is refused with a code, and takes no more memory than it has bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        const code = codeOf(() => decodeEntries(bytes));
        expect(['none', 'ERR_MANIFEST_FORMAT']).toContain(code);
      }),
      { numRuns: 2000 },
    );
    const cut = encodeEntry(extent());
    for (let end = 1; end < cut.length; end++) {
      expect(codeOf(() => decodeEntries(cut.subarray(0, end)))).toBe('ERR_MANIFEST_FORMAT');
    }
    const most = new Uint8Array(ENTRIES_BYTES_MAX + 1).fill(3);
    expect(codeOf(() => decodeEntries(most))).toBe('ERR_MANIFEST_FORMAT');
    const endless = new Uint8Array(20).fill(0xff);
    expect(codeOf(() => decodeEntries(endless))).toBe('ERR_MANIFEST_FORMAT');
  });
});
