/** What `encode-pages.js` is told. */
export interface EncodeSettings {
  /** File of QEMU's stream. */
  readonly stream: string;
  /** File of the pages alone, and where they were, to compare with. */
  readonly pages: string;
  readonly indexes: readonly number[];
  readonly codec: 'auto' | 'none' | 'lz4' | 'zstd';
  /** Whether batches always wait for paths, or paths for batches: `auto` goes by it. */
  readonly isNetworkLimit: boolean;
  /** Bytes of pages that both ends keep, so that they need not be sent again. */
  readonly storeBytes: number;
  /** Passes are made for so long, one at least. */
  readonly seconds: number;
}

/** What it reports: of the pass that took the least processor time. */
export interface EncodeReport {
  readonly pages: number;
  readonly batches: number;
  /** Batches with header and map, as they go into a frame. */
  readonly wireBytes: number;
  /** User and system, all threads: stream cut into batches, batches encoded. */
  readonly cpuSeconds: number;
  readonly seconds: number;
  /** Batches by the codec that carried them. */
  readonly codecs: Readonly<Record<string, number>>;
  /** The step of the ladder that was in use last. */
  readonly step: string;
}
