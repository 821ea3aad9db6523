#include <cstring>

#include "kernel/batch.h"
#include "kernel/batch_rewrite.h"
#include "kernel/limits.h"

namespace pagelane::kernel {

namespace {

/// Checks what the sizes below rely on: the slot was within the script's reach since it was sealed.
Fault CheckSealed(const BatchHeader& header, std::size_t batch_bytes) noexcept {
  if (header.page_bits < kPageBitsMin || header.page_bits > kPageBitsMax) {
    return {FaultCode::kHeader, "page bits must be <=", kPageBitsMax, header.page_bits};
  }
  if (header.map_bytes > kMapBytesMax || header.map_bytes % kMapEntryBytes != 0) {
    return {FaultCode::kHeader, "map bytes must be whole entries, at most", kMapBytesMax,
            header.map_bytes};
  }
  if (header.literal_bytes > kContentBytesMax) {
    return {FaultCode::kHeader, "literal bytes must be <=", kContentBytesMax,
            header.literal_bytes};
  }
  const std::uint64_t wanted =
      kBatchHeaderBytes + std::uint64_t{header.map_bytes} + header.literal_bytes;
  if (wanted != batch_bytes) {
    return {FaultCode::kHeader, "sealed batch must have bytes", wanted, batch_bytes};
  }
  return {};
}

/* Chosen by us */
/// zstd goes through what it cannot compress as fast as it reads, up to this level.
constexpr int kProbedLevelMin = 4;
constexpr std::size_t kProbes = 8;
constexpr std::size_t kProbeBytes = 4096;
constexpr int kProbeLevel = 1;  // the fastest that sees letters which are merely not equally likely

/// Whether a slow level would be wasted: pieces from all over the literals do not shrink.
///
/// out: as many bytes as all the pieces.
bool IsIncompressible(std::span<const std::uint8_t> literals, const EncodeOptions& options,
                      std::uint8_t* out, Compressor& compressor) noexcept {
  if (options.codec != Codec::kZstd || options.level < kProbedLevelMin ||
      literals.size() < 2 * kProbes * kProbeBytes) {
    return false;
  }
  const std::size_t step = literals.size() / kProbes;
  for (std::size_t i = 0; i < kProbes; i++) {
    const auto piece = literals.subspan(i * step, kProbeBytes);
    const std::size_t smaller = kProbeBytes - kProbeBytes / 32;
    if (compressor.Compress(Codec::kZstd, kProbeLevel, piece, {}, {out, smaller}) > 0) {
      return false;
    }
  }
  return true;
}

/// Compresses the literals of the batch in `slot` into `out`, at the same distance from its room.
void CompressInto(std::span<std::uint8_t> slot, const EncodeOptions& options,
                  std::span<const std::uint8_t> prefix, std::uint8_t* out,
                  Compressor& compressor, EncodedBatch* encoded) noexcept {
  const std::uint8_t* head = slot.data() + encoded->start;
  BatchHeader header = BatchHeader::Load(head);
  const std::size_t head_bytes = kBatchHeaderBytes + header.map_bytes;
  const std::span<const std::uint8_t> literals(head + head_bytes, header.literal_bytes);
  if (literals.size() < 2 ||
      IsIncompressible(literals, options, out + encoded->start, compressor)) {
    return;
  }
  const std::size_t wire_bytes = compressor.Compress(
      options.codec, options.level, literals, prefix,
      {out + encoded->start + head_bytes, literals.size() - 1});
  if (wire_bytes == 0) {
    return;
  }
  std::memcpy(out + encoded->start, head, head_bytes);
  header.codec = static_cast<std::uint8_t>(options.codec);
  header.wire_bytes = static_cast<std::uint32_t>(wire_bytes);
  header.Store(out + encoded->start);
  encoded->is_in_out = true;
  encoded->codec = options.codec;
  encoded->end = encoded->start + head_bytes + wire_bytes;
}

}  // namespace

Fault EncodeBatch(std::span<std::uint8_t> slot, std::size_t start, std::size_t end,
                  const EncodeOptions& options, std::uint8_t* out, Scratch& scratch,
                  EncodedBatch* encoded) noexcept {
  if (end - start < kBatchHeaderBytes) {
    return {FaultCode::kHeader, "sealed batch must have bytes, at least", kBatchHeaderBytes,
            end - start};
  }
  const BatchHeader header = BatchHeader::Load(slot.data() + start);
  if (const Fault fault = CheckSealed(header, end - start)) {
    return fault;
  }
  if (start + kBatchHeaderBytes + header.map_bytes != kSlotRoomBytes) {
    return {FaultCode::kHeader, "contents of a sealed batch must begin at", kSlotRoomBytes,
            start + kBatchHeaderBytes + header.map_bytes};
  }
  const std::size_t page_bytes = std::size_t{1} << header.page_bits;
  if (options.store != nullptr && options.store->pages().page_bytes() != page_bytes) {
    return {FaultCode::kHeader, "bytes of a page must be those of the store,",
            options.store->pages().page_bytes(), page_bytes};
  }
  EncodeRoom* room = scratch.Encoding();
  std::uint8_t* prefix = options.codec == Codec::kZstd ? scratch.Prefix() : nullptr;
  if (room == nullptr || (prefix == nullptr && options.codec == Codec::kZstd)) {
    return {FaultCode::kNoMemory, "bytes needed:", sizeof(EncodeRoom) + kPrefixBytesMax, 0};
  }
  BatchRewrite rewrite(slot, start, options, *room, prefix);
  if (const Fault fault = rewrite.Run(encoded)) {
    return fault;
  }
  if (options.codec != Codec::kNone) {
    CompressInto(slot, options, rewrite.prefix(), out, scratch.compressor(), encoded);
  }
  return {};
}

}  // namespace pagelane::kernel
