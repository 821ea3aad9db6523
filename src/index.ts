/**
 * pagelane moves running virtual machines between hosts, over every network path there is.
 *
 * A session joins two hosts over 1 to 16 paths. A migration is a Duplex on it: at the source write
 * QEMU's migration stream into it and read the return path from it; at the destination the other
 * way round.
 *
 * ```ts
 * const session = await connect({ paths: [{ host, port }], security });
 * const migration = session.openMigration();
 * await pipeline(qemuSocket, migration, qemuSocket).catch(() => {});
 * console.log((await migration.result).outcome);
 * ```
 *
 * A migration that fails is an error of its stream; with `pipeline` QEMU's socket is then closed,
 * and the guest runs on at the source.
 */
export {
  formatHostPort,
  formatQemuAddress,
  type PathAddress,
  parseHostPort,
  parsePathAddress,
  parsePathSpec,
  parseQemuAddress,
  type QemuAddress,
} from './address.ts';
export {
  type AskOptions,
  askSession,
  type FoundSession,
  type FoundSessions,
  findSessions,
} from './control/client.ts';
export { findPath, findSession } from './control/find.ts';
export type { SessionReport, SessionState } from './control/report.ts';
export type { ControlRequest } from './control/request.ts';
export { type ControlledSession, type ControlOptions, ControlServer } from './control/server.ts';
export {
  codeOf,
  DirtyLogError,
  EndpointError,
  type GuestPlace,
  MemoryError,
  MigrationError,
  messageOf,
  PagelaneError,
  PathError,
  ProtocolError,
  RemoteError,
  type Side,
  StagingError,
  StreamError,
  ThreadError,
} from './errors.ts';
export { PATHS_MAX } from './frame/limits.ts';
export {
  type HandoverId,
  type JournalEntry,
  type Owner,
  ownerOf,
} from './migration/commit.ts';
export type { ConvergenceEstimate } from './migration/convergence.ts';
export { DestinationStream } from './migration/destination.ts';
export {
  IncomingGuest,
  type KeepOptions,
  type ReceiveOptions,
} from './migration/guest-destination.ts';
export type { MoveOptions, WarmOptions } from './migration/guest-options.ts';
export {
  type HandoverChannel,
  IncomingQuestion,
  type RecoverGuestOptions,
  recoverGuest,
} from './migration/guest-recovery.ts';
export type { GuestProgress, GuestResult, RoundFacts } from './migration/guest-result.ts';
export type {
  GuestHooks,
  HandoverOptions,
  HandoverResult,
  HandoverTimeouts,
} from './migration/handover.ts';
export { DestinationHandover, type DestinationHooks } from './migration/handover-destination.ts';
export {
  decodeHandover,
  encodeHandover,
  type HandoverMessage,
  isHandoverKind,
} from './migration/handover-message.ts';
export { SourceHandover, type SourceHooks } from './migration/handover-source.ts';
export { FileJournal, type Journal, newMigrationId } from './migration/journal.ts';
export { migrateToNull } from './migration/null-peer.ts';
export type { GatherSettings } from './migration/page-gatherer.ts';
export type { StageOptions } from './migration/page-stager.ts';
export { type ParkFacts, type ParkOptions, parkGuest } from './migration/park.ts';
export type {
  CodecBytes,
  MigrationResult,
  PageCounts,
  PathFacts,
  Phase,
  Progress,
  ResentFacts,
  StoreFacts,
} from './migration/progress.ts';
export { sumOf } from './migration/progress.ts';
export { type RecoverOptions, recover } from './migration/recover.ts';
export {
  type AcceptOptions,
  connect,
  listen,
  MigrationListener,
  MigrationSession,
  migrate,
} from './migration/session.ts';
export { type SourceOptions, SourceStream } from './migration/source.ts';
export { errorOf, MigrationStream } from './migration/stream.ts';
export { checkNoTicket, readTicket, type Ticket, writeTicket } from './migration/ticket.ts';
export { type UnparkFacts, type UnparkOptions, unparkGuest } from './migration/unpark.ts';
export { DirtyBitmap, type PageRun } from './page/bitmap.ts';
export type { CodecName } from './page/codec-choice.ts';
export { formatCpuSet, parseCpuSet } from './page/cpu-set.ts';
export {
  callbackDirtyLog,
  type DirtyLog,
  hashDirtyLog,
  writeProtectDirtyLog,
} from './page/dirty-log.ts';
export { type KeptKey, KeptMemory } from './page/kept-memory.ts';
export { type MappedMemory, type VerifiedFacts, VerifyError } from './page/loaded-memory.ts';
export {
  createMemoryFile,
  GuestMemory,
  type GuestMemoryOptions,
  type MemoryBlockSource,
  type MemoryHandle,
} from './page/memory.ts';
export { digestMemory } from './page/memory-digest.ts';
export { RoundChoice } from './page/round.ts';
export { checkCpuSet, setThreads, type ThreadOptions } from './page/threads.ts';
export { createKeyFile, readKeyFile } from './path/key-file.ts';
export type { PathReport } from './path/path.ts';
export type { Security } from './path/secure.ts';
export { QmpClient } from './qmp/client.ts';
export type { ConnectOptions } from './session/connect.ts';
export type { SessionEvent } from './session/events.ts';
export type { ListenOptions } from './session/listener.ts';
export type { SessionOptions } from './session/options.ts';
export {
  type IntermediaryAddress,
  parseIntermediary,
} from './staging/address.ts';
export { ExtentSeal, type StagingScope } from './staging/extent.ts';
export { Gather, type GatherFacts, type GatherOptions, type GonePages } from './staging/gather.ts';
export {
  Intermediary,
  type IntermediaryFacts,
  type IntermediaryOptions,
} from './staging/intermediary.ts';
export { removeStaged, type StagedAttempt, stagedAttempts } from './staging/leftovers.ts';
export type { ExtentEntry, ManifestEntry, ParityEntry, VoidEntry } from './staging/manifest.ts';
export { decodeEntries, EntryWriter, encodeEntry } from './staging/manifest-codec.ts';
export { closeIntermediaries, openIntermediaries } from './staging/open-intermediaries.ts';
export {
  applyTo,
  extentEncoder,
  type StagedPages,
  scatterAll,
  scatterPages,
} from './staging/pages.ts';
export {
  type LostPages,
  Scatter,
  type ScatterFacts,
  type ScatterOptions,
} from './staging/scatter.ts';
export { loadManifest, type StoredManifest, storeManifest } from './staging/stored-manifest.ts';
export { QemuChannel, QemuListener } from './stream/endpoint.ts';
export {
  formatBytes,
  formatDuration,
  formatRate,
  parseDuration,
  parseRate,
  parseSize,
} from './units.ts';
