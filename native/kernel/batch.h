#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernel/batch_format.h"
#include "kernel/block_table.h"
#include "kernel/compress.h"
#include "kernel/page_hashes.h"
#include "kernel/page_store.h"
#include "kernel/scratch.h"
#include "kernel/store_index.h"

namespace pagelane::kernel {

/// Which rule a batch breaks.
enum class FaultCode : std::uint8_t {
  kNone,
  kHeader,
  kMap,
  kPageIndex,
  kLiterals,
  kCodec,
  kChecksum,
  kReference,
  kOutput,
  kMemoryLost,
  kNoMemory,
};

/// A broken rule, with what was wanted and what was there. Converts to true if there is one.
struct Fault {
  FaultCode code = FaultCode::kNone;
  const char* rule = "";  // "page index must be <"
  std::uint64_t wanted = 0;
  std::uint64_t seen = 0;

  explicit operator bool() const noexcept { return code != FaultCode::kNone; }
};

/// The destination's side of a stream: its blocks, and how its sections look.
struct Target {
  const BlockTable* blocks = nullptr;
  /// Null if nothing is kept: then a batch must not refer to anything.
  PageStore* store = nullptr;
  bool has_footer = false;
  std::uint32_t section_id = 0;
  /// Null if memory is not going to be verified.
  PageHashes* hashes = nullptr;
};

/// What a batch will be as QEMU's records. Offsets count from the first byte of the records.
struct DecodedBatch {
  std::uint64_t output_bytes = 0;
  bool opens_inside = false;
  bool ends_inside = false;
  std::int64_t first_record = -1;
  bool first_continues = false;
  std::int32_t first_block = -1;
  std::int64_t last_record = -1;
  std::int64_t last_record_end = -1;
  std::int32_t last_block = -1;
  std::int32_t entry_block = -1;
  std::uint64_t pages = 0;
  std::uint64_t zero_pages = 0;
  std::uint64_t fill_pages = 0;
  std::uint64_t same_pages = 0;
  std::uint64_t delta_pages = 0;
  std::uint32_t number = 0;
  std::uint32_t base = 0;
};

/// How a batch is to be encoded.
struct EncodeOptions {
  Codec codec = Codec::kNone;
  int level = 0;
  BatchPlace place;
  /// Null if nothing may be referred to.
  StoreIndex* store = nullptr;
  /// Whether pages that were never sent before are kept as well.
  bool keeps = false;
  /// Whether similar pages of the store help to compress (zstd only).
  bool finds_similar = false;
};

/// Where an encoded batch is, counted from the beginning of its slot, and how its pages went.
struct EncodedBatch {
  bool is_in_out = false;
  Codec codec = Codec::kNone;
  std::size_t start = 0;
  std::size_t end = 0;
  /// References and contents before they were compressed.
  std::uint32_t literal_bytes = 0;
  std::uint32_t same_pages = 0;
  std::uint32_t delta_pages = 0;
  /// Bytes of all deltas.
  std::uint32_t delta_bytes = 0;
  /// Pages that were sent before.
  std::uint32_t again_pages = 0;
};

/// Completes a sealed batch: pages that the store has are referred to, literals are compressed as
/// a whole, and a checksum is made of what the receiver will have decoded.
///
/// slot:   with the sealed batch at [start, end): header, map, and contents at kSlotRoomBytes. Its
///         bytes are the encoder's to change.
/// out:    as many bytes; gets the batch if that makes it smaller. Unused with Codec::kNone.
Fault EncodeBatch(std::span<std::uint8_t> slot, std::size_t start, std::size_t end,
                  const EncodeOptions& options, std::uint8_t* out, Scratch& scratch,
                  EncodedBatch* encoded) noexcept;

/// Checks header and map of a batch from the wire against every limit, and plans its output.
///
/// head: the first bytes of the batch: all of it, or at least the longest header and map.
Fault InspectHead(const Target& target, std::span<const std::uint8_t> head,
                  std::size_t batch_bytes, DecodedBatch* decoded) noexcept;

/// Checks that `count` slots from `first` on are in the target's store.
Fault CheckSlots(const Target& target, std::uint64_t first, std::uint64_t count) noexcept;

/// Writes a batch from the wire as QEMU's RAM records, keeps what it says in the store, and notes
/// the hashes of its pages.
///
/// Promise: checks all that InspectHead does before the first byte is written, and the checksum of
///          all pages, as they are in `output`, before any of them is kept or noted; nothing
///          outside `output`, store and hashes is written. On a fault `output` holds nothing of
///          use.
Fault DecodeBatch(const Target& target, std::span<const std::uint8_t> batch,
                  std::span<std::uint8_t> output, Scratch& scratch,
                  DecodedBatch* decoded) noexcept;

}  // namespace pagelane::kernel
