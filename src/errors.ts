/** Where the guest is, as far as this side can know. */
export type GuestPlace = 'source' | 'destination' | 'unknown';

/** The two ends of a migration. */
export type Side = 'source' | 'destination';

/** What every error of pagelane has: a code that stays, and a message for people. */
export class PagelaneError extends Error {
  /** Stable name of the failure, `ERR_…`. Match on this, not on the message or the class. */
  readonly code: string;

  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
    this.code = code;
  }
}

/** The peer broke the wire format (docs/protocol.md). */
export class ProtocolError extends PagelaneError {
  readonly lane: number | undefined;
  readonly sequence: number | undefined;

  constructor(
    code: string,
    message: string,
    { lane, sequence, cause }: { lane?: number; sequence?: number; cause?: unknown } = {},
  ) {
    super(code, message, { cause });
    this.lane = lane;
    this.sequence = sequence;
  }
}

/** QEMU's migration stream is not what it should be, at `offsetBytes` from its start. */
export class StreamError extends PagelaneError {
  readonly offsetBytes: number;

  constructor(code: string, message: string, offsetBytes: number) {
    super(code, message);
    this.offsetBytes = offsetBytes;
  }
}

/** A network path, or the last of them, failed. */
export class PathError extends PagelaneError {
  /** `host:port` of the peer, or of the listener. */
  readonly address: string;

  constructor(code: string, message: string, address: string, cause?: unknown) {
    super(code, message, { cause });
    this.address = address;
  }
}

/** QEMU's side of the migration channel failed: its socket is missing, busy or closed. */
export class EndpointError extends PagelaneError {
  /** The endpoint as it was written: `unix:/run/vm`, `-`. */
  readonly endpoint: string;

  constructor(code: string, message: string, endpoint: string, cause?: unknown) {
    super(code, message, { cause });
    this.endpoint = endpoint;
  }
}

/** The system refuses the threads for page contents: their number, processors or priority. */
export class ThreadError extends PagelaneError {
  /** The system's number for the reason, above 0: 13 is EACCES. */
  readonly errno: number;

  constructor(code: string, message: string, errno: number, cause?: unknown) {
    super(code, message, { cause });
    this.errno = errno;
  }
}

/** Guest memory cannot be mapped, or not be used any more. */
export class MemoryError extends PagelaneError {}

/** A dirty log cannot work here, or has failed: what it knew of writes is gone. */
export class DirtyLogError extends PagelaneError {}

/** An intermediary, or what it holds, is not what staging needs. */
export class StagingError extends PagelaneError {
  /** The intermediary as it was written, never with a password; undefined if it is none of them. */
  readonly intermediary: string | undefined;

  constructor(
    code: string,
    message: string,
    { intermediary, cause }: { intermediary?: string; cause?: unknown } = {},
  ) {
    super(code, message, { cause });
    this.intermediary = intermediary;
  }
}

/** The other side failed and told us why. */
export class RemoteError extends PagelaneError {
  readonly side: Side;

  constructor(code: string, message: string, side: Side) {
    super(code, message);
    this.side = side;
  }
}

/**
 * A migration ended without success.
 *
 * `guest` says where the guest is left, `phase` what was being done, `cause` what went wrong below.
 */
export class MigrationError extends PagelaneError {
  readonly guest: GuestPlace;
  readonly side: Side;
  readonly phase: string;

  constructor(
    code: string,
    message: string,
    where: { guest: GuestPlace; side: Side; phase: string; cause?: unknown },
  ) {
    super(code, message, { cause: where.cause });
    this.guest = where.guest;
    this.side = where.side;
    this.phase = where.phase;
  }
}

/** The code of any error: its own, a system error's, or `ERR_INTERNAL`. */
export function codeOf(error: unknown): string {
  if (error instanceof Error && 'code' in error && typeof error.code === 'string') {
    return error.code;
  }
  return 'ERR_INTERNAL';
}

/** The message of anything that was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Anything that was thrown, as an error with a code. */
export function asPagelaneError(error: unknown): PagelaneError {
  if (error instanceof PagelaneError) return error;
  return new PagelaneError(codeOf(error), messageOf(error), { cause: error });
}
