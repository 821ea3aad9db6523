#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "kernel/batch_format.h"
#include "kernel/block_table.h"
#include "kernel/compress.h"

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
  kOutput,
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

/// Memory of one thread for encoding and decoding, made at first use and then reused.
class Scratch {
 public:
  Compressor& compressor() noexcept { return compressor_; }
  /// kBatchHeaderBytes + kMapBytesMax bytes, null if there is no memory.
  std::uint8_t* Head() noexcept;
  /// kLiteralBytesMax bytes, null if there is no memory.
  std::uint8_t* Literals() noexcept;

 private:
  Compressor compressor_;
  std::unique_ptr<std::uint8_t[]> head_;
  std::unique_ptr<std::uint8_t[]> literals_;
};

/// The destination's side of a stream: its blocks, and how its sections look.
struct Target {
  const BlockTable* blocks = nullptr;
  bool has_footer = false;
  std::uint32_t section_id = 0;
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
};

/// Where an encoded batch is.
struct EncodedBatch {
  bool is_in_out = false;
  Codec codec = Codec::kNone;
  std::size_t batch_bytes = 0;
};

/// Completes a sealed batch: checksum, and literals compressed as a whole.
///
/// batch: what BatchBuilder::Seal left, header first.
/// out:   as many bytes; gets the batch if that makes it smaller. Unused with Codec::kNone.
Fault EncodeBatch(std::span<std::uint8_t> batch, Codec codec, int level, std::uint8_t* out,
                  Scratch& scratch, EncodedBatch* encoded) noexcept;

/// Checks header and map of a batch from the wire against every limit, and plans its output.
///
/// head: the first bytes of the batch: all of it, or at least the longest header and map.
Fault InspectHead(const Target& target, std::span<const std::uint8_t> head,
                  std::size_t batch_bytes, DecodedBatch* decoded) noexcept;

/// Writes a batch from the wire as QEMU's RAM records.
///
/// Promise: checks all that InspectHead does, and the checksum, before the first byte is written;
///          nothing outside `output` is written. On a fault `output` holds nothing of use.
Fault DecodeBatch(const Target& target, std::span<const std::uint8_t> batch,
                  std::span<std::uint8_t> output, Scratch& scratch,
                  DecodedBatch* decoded) noexcept;

/// Checksum of a batch: `header` of kBatchHeaderBytes, `map`, and the literals decoded.
std::uint64_t BatchChecksum(const std::uint8_t* header, std::span<const std::uint8_t> map,
                            std::span<const std::uint8_t> literals) noexcept;

}  // namespace pagelane::kernel
