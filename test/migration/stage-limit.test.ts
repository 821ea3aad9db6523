import { expect, test } from 'vitest';
import { limitStage } from '../../src/migration/stage-limit.ts';

class Stage {
  readonly log: string[] = [];
  readonly intermediaryCount: number;

  constructor(intermediaryCount: number) {
    this.intermediaryCount = intermediaryCount;
  }

  limit(bytesPerSecond: number | undefined, intermediary: number | undefined): void {
    this.log.push(`${bytesPerSecond} ${intermediary}`);
  }
}

test('what is staged is limited, together or at one intermediary', () => {
  const stage = new Stage(2);
  limitStage(stage, 5, undefined);
  limitStage(stage, undefined, 1);
  expect(stage.log).toEqual(['5 undefined', 'undefined 1']);
});

test.each([
  ['nothing is staged', undefined, 0],
  ['nothing is staged', new Stage(0), undefined],
  ['there are 2 intermediaries', new Stage(2), 2],
])('"%s" is said', (message, stage, intermediary) => {
  const says = expect.objectContaining({
    code: 'ERR_CONTROL_STAGE',
    message: expect.stringContaining(message),
  });
  expect(() => limitStage(stage, 5, intermediary)).toThrow(says);
  expect(stage?.log ?? []).toEqual([]);
});
