export interface DirtyLog {
  collect(bitmaps: readonly Uint32Array[]): void | Promise<void>;
  start(): void | Promise<void>;
  stop(): void | Promise<void>;
  readonly name: string;
}
