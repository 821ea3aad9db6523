import { PagelaneError } from '../errors.ts';
import { TEXT_CHARACTERS_MAX } from './limits.ts';

/** What is read, for messages, and the code of what is wrong with it. */
export interface FieldsOptions {
  readonly what: string;
  readonly code: string;
}

/** Reads the fields of an object that came from outside: each is checked, none is believed. */
export class Fields {
  readonly #options: FieldsOptions;
  readonly #values: Map<string, unknown>;
  readonly #unread: Set<string>;

  /** @throws {PagelaneError} If the value is no object. */
  constructor(value: unknown, options: FieldsOptions) {
    this.#options = options;
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      throw this.#error('expected an object');
    }
    this.#values = new Map(Object.entries(value));
    this.#unread = new Set(this.#values.keys());
  }

  /** Reads a line of JSON. @throws {PagelaneError} If it is none, or no object. */
  static parse(line: string, options: FieldsOptions): Fields {
    let value: unknown;
    try {
      value = JSON.parse(line);
    } catch (cause) {
      const message = `Cannot read ${options.what}: it is no line of JSON`;
      throw new PagelaneError(options.code, message, { cause });
    }
    return new Fields(value, options);
  }

  /** Checks the field `v`. */
  version(expected: number): void {
    const version = this.whole('v');
    if (version !== expected) throw this.#error(`its version is ${version}, not ${expected}`);
  }

  text(name: string, options: { charactersMax?: number } = {}): string {
    const { charactersMax = TEXT_CHARACTERS_MAX } = options;
    const value = this.#take(name);
    if (typeof value === 'string' && value.length <= charactersMax) return value;
    throw this.#error(`"${name}" must be a text of at most ${charactersMax} characters`);
  }

  /** One of several texts. */
  choice<T extends string>(name: string, choices: readonly T[]): T {
    const value = this.#take(name);
    const found = choices.find((choice) => choice === value);
    if (found !== undefined) return found;
    throw this.#error(`"${name}" must be one of ${choices.join(', ')}`);
  }

  boolean(name: string): boolean {
    const value = this.#take(name);
    if (typeof value === 'boolean') return value;
    throw this.#error(`"${name}" must be true or false`);
  }

  /** A number that is not below 0. */
  amount(name: string): number {
    const value = this.#take(name);
    if (typeof value === 'number' && Number.isFinite(value) && value >= 0) return value;
    throw this.#error(`"${name}" must be a number >= 0`);
  }

  /** A whole number from `min` to `max`. */
  whole(name: string, options: { min?: number; max?: number } = {}): number {
    const { min = 0, max = Number.MAX_SAFE_INTEGER } = options;
    const value = this.#take(name);
    if (isWhole(value) && value >= min && value <= max) return value;
    throw this.#error(`"${name}" must be a whole number from ${min} to ${max}`);
  }

  /** What `read` makes of the field; undefined if it is absent. */
  optional<T>(name: string, read: () => T): T | undefined {
    return this.#values.has(name) ? read() : undefined;
  }

  /** Whether the field is there and null. */
  isNull(name: string): boolean {
    if (this.#values.get(name) !== null) return false;
    this.#unread.delete(name);
    return true;
  }

  object(name: string): Fields {
    return new Fields(this.#take(name), this.#inside(name));
  }

  objects(name: string): Fields[] {
    const value = this.#take(name);
    if (!Array.isArray(value)) throw this.#error(`"${name}" must be a list`);
    return value.map((each: unknown) => new Fields(each, this.#inside(name)));
  }

  /** Says that all is read. @throws {PagelaneError} If there is a field that nobody asked for. */
  end(): void {
    const [name] = this.#unread;
    if (name !== undefined) throw this.#error(`there is no field "${name}"`);
  }

  #take(name: string): unknown {
    this.#unread.delete(name);
    return this.#values.get(name);
  }

  #inside(name: string): FieldsOptions {
    return { ...this.#options, what: `"${name}" of ${this.#options.what}` };
  }

  #error(why: string): PagelaneError {
    const { code, what } = this.#options;
    return new PagelaneError(code, `Cannot read ${what}: ${why}`);
  }
}

function isWhole(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value);
}
