import { availableParallelism } from 'node:os';
import { asTyped } from './addon-error.ts';

/** How the pages of a block are cut for threads. */
export interface Pieces {
  readonly pages: number;
  /** Pages of each piece but the last: a multiple of 32. */
  readonly piecePages: number;
  /** Pieces that are in work at once. @default as many as this process may use processors */
  readonly lanes?: number;
}

/**
 * Works on all pages of a block, some pieces at a time. When it returns or throws, no thread is at
 * work any more.
 */
export async function inPieces(
  { pages, piecePages, lanes = availableParallelism() }: Pieces,
  work: (firstPage: number, pageCount: number) => Promise<void>,
): Promise<void> {
  let next = 0;
  const runLane = async (): Promise<void> => {
    while (next < pages) {
      const first = next;
      next += piecePages;
      try {
        await work(first, Math.min(piecePages, pages - first));
      } catch (error) {
        next = pages;
        throw asTyped(error);
      }
    }
  };
  const length = Math.min(lanes, Math.ceil(pages / piecePages));
  const results = await Promise.allSettled(Array.from({ length }, runLane));
  const failed = results.find((result) => result.status === 'rejected');
  if (failed !== undefined) throw failed.reason;
}
