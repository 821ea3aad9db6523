import type { Clock } from '../clock.ts';
import { PagelaneError } from '../errors.ts';
import { REFUSALS_SPAN_MS, REFUSALS_TOLD_MAX } from './limits.ts';

/**
 * Tells why connections were turned away, no faster than somebody can read it.
 *
 * Of a flood the first ones are told; then, at the end of the span, how many more there were.
 */
export class RefusalLog {
  readonly #tell: (error: PagelaneError) => void;
  readonly #clock: Clock;
  #total = 0;
  #told = 0;
  #untold = 0;
  #isCounting = false;

  constructor(tell: (error: PagelaneError) => void, clock: Clock) {
    this.#tell = tell;
    this.#clock = clock;
  }

  /** All refusals there were, told or not. */
  get total(): number {
    return this.#total;
  }

  /** @param makeError Called only if it is told: an error costs more than a refusal. */
  add(makeError: () => PagelaneError): void {
    this.#total++;
    if (!this.#isCounting) {
      this.#isCounting = true;
      this.#clock.after(REFUSALS_SPAN_MS, () => this.#endSpan());
    }
    if (this.#told === REFUSALS_TOLD_MAX) {
      this.#untold++;
      return;
    }
    this.#told++;
    this.#tell(makeError());
  }

  #endSpan(): void {
    const untold = this.#untold;
    this.#isCounting = false;
    this.#told = 0;
    this.#untold = 0;
    if (untold === 0) return;
    const message = `Refused ${untold} further connections within ${REFUSALS_SPAN_MS} ms`;
    this.#tell(new PagelaneError('ERR_REFUSED_MORE', message));
  }
}
