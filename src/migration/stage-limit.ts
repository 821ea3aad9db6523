import { PagelaneError } from '../errors.ts';

/** What moves pages to or from intermediaries. */
export interface LimitedStage {
  /** How many there are; 0 as long as they are not open. */
  readonly intermediaryCount: number;
  /** Limits one of them, or all together; undefined ends the limit. */
  limit(bytesPerSecond: number | undefined, intermediary: number | undefined): void;
}

/** @throws {PagelaneError} ERR_CONTROL_STAGE If there is no stage, or no such intermediary. */
export function limitStage(
  stage: LimitedStage | undefined,
  bytesPerSecond: number | undefined,
  intermediary: number | undefined,
): void {
  const count = stage?.intermediaryCount ?? 0;
  if (stage === undefined || count === 0 || (intermediary ?? 0) >= count) {
    const text =
      count === 0 ? 'nothing is staged' : `there are ${count} intermediaries, counted from 0`;
    throw new PagelaneError('ERR_CONTROL_STAGE', `Cannot limit staging: ${text}`);
  }
  stage.limit(bytesPerSecond, intermediary);
}
