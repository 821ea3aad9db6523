import { setImmediate } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { Deferred } from '../../src/migration/deferred.ts';
import { Turns } from '../../src/migration/turns.ts';

test('so many go on at once, in their order; what fails gives its turn back', async () => {
  const turns = new Turns(2);
  const begun: number[] = [];
  const ends = Array.from({ length: 5 }, () => new Deferred<number>());
  const works = ends.map(({ promise }, index) =>
    turns.run(() => {
      begun.push(index);
      return promise;
    }),
  );
  const settled = Promise.allSettled(works);
  await setImmediate();
  expect(begun).toEqual([0, 1]);
  ends[1]!.reject(new Error('it fails'));
  await setImmediate();
  expect(begun).toEqual([0, 1, 2]);
  ends[0]!.resolve(7);
  ends[2]!.resolve(7);
  await setImmediate();
  expect(begun).toEqual([0, 1, 2, 3, 4]);
  for (const end of ends) end.resolve(7);
  const statuses = (await settled).map(({ status }) => status);
  expect(statuses.filter((status) => status === 'rejected')).toHaveLength(1);
  await expect(turns.run(() => Promise.resolve(9))).resolves.toBe(9);
});
