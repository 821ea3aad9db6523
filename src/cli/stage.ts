import {
  type GatherSettings,
  type IntermediaryAddress,
  openIntermediaries,
  parseDuration,
  parseIntermediary,
  parseRate,
  type StageOptions,
  writeTicket,
} from '../index.ts';
import { type Flags, readFlag, UsageError, type Values } from './options.ts';

/** Flags of whoever puts pages into intermediaries, or gets them from there. */
export const STAGE_FLAGS: Flags = {
  stage: {
    type: 'string',
    multiple: true,
    value: 'URL[,URL…]',
    help: 'intermediaries for the pages of a post-copy: redis://[USER@]HOST[:PORT], rediss://…, redis+unix:/PATH',
  },
  'stage-bandwidth': {
    type: 'string',
    value: 'RATE|off',
    help: 'most that goes to intermediaries, or is gathered ahead; default off',
  },
};

/** Flags of whoever puts them there. */
export const PARITY_FLAG: Flags = {
  parity: {
    type: 'string',
    value: '0|1',
    help: '1: any one intermediary may be lost, at 1/(N-1) more bytes; default 0',
  },
};

/** How long what is parked stays there. */
export const TTL_FLAG: Flags = {
  ttl: {
    type: 'string',
    value: 'TIME',
    help: 'how long intermediaries keep the guest; default 168h',
  },
};

/* Chosen by us */

/** A parked guest that nobody gathers stays so long. */
const PARKED_TTL_MS: number = 7 * 24 * 3_600_000;

/** Reads `--stage`; nothing if it is not there. */
export function readAddresses(values: Values): IntermediaryAddress[] {
  const texts = values.texts('stage').flatMap((text) => text.split(','));
  return texts.map((text) => readFlag('stage', text, parseIntermediary));
}

/** Reads `--stage-bandwidth`; nothing for no limit. */
export function readStageBandwidth(values: Values): { maxBytesPerSecond?: number } {
  const text = values.text('stage-bandwidth') ?? 'off';
  return text === 'off' ? {} : { maxBytesPerSecond: readFlag('stage-bandwidth', text, parseRate) };
}

/** How a destination gathers. */
export function readGather(values: Values): GatherSettings {
  const intermediaries = readAddresses(values);
  const path = values.text('ticket');
  return {
    ...(intermediaries.length > 0 && { intermediaries }),
    ...readStageBandwidth(values),
    ...(path !== undefined && { keepTicket: (ticket) => writeTicket(path, ticket) }),
  };
}

/** What a source stages to, as it is asked for. */
export interface StagePlan {
  readonly addresses: ReturnType<typeof parseIntermediary>[];
  readonly hasParity: boolean;
  readonly maxBytesPerSecond?: number;
  readonly ttlMs: number;
}

/** How a source stages; undefined if it does not. */
export function readStage(values: Values): StagePlan | undefined {
  const addresses = readAddresses(values);
  const parity = values.text('parity') ?? '0';
  if (parity !== '0' && parity !== '1') throw new UsageError('--parity: must be 0 or 1');
  const hasParity = parity === '1';
  if (addresses.length === 0) {
    if (hasParity) throw new UsageError('--parity is for --stage');
    return undefined;
  }
  const hasCluster = addresses.some(({ at }) => at.kind === 'cluster');
  if (hasParity && addresses.length < 2 && !hasCluster) {
    throw new UsageError('--parity 1 needs two intermediaries at least');
  }
  const ttl = values.text('ttl');
  const ttlMs = ttl === undefined ? PARKED_TTL_MS : readFlag('ttl', ttl, parseDuration);
  return { addresses, hasParity, ttlMs, ...readStageBandwidth(values) };
}

/**
 * Opens what a source stages to: the caller's to close.
 *
 * @param options.isParking Whether nobody renews what is there.
 */
export async function openStage(
  { addresses, hasParity, ttlMs, maxBytesPerSecond }: StagePlan,
  { isParking = false }: { readonly isParking?: boolean } = {},
): Promise<StageOptions> {
  const intermediaries = await openIntermediaries(addresses, isParking ? { ttlMs } : {});
  const limit = maxBytesPerSecond !== undefined && { maxBytesPerSecond };
  return { intermediaries, hasParity, ...limit };
}
