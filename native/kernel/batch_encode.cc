#include <cstring>
#include <new>

#include "kernel/batch.h"
#include "kernel/hash.h"
#include "kernel/limits.h"

namespace pagelane::kernel {

namespace {

std::uint8_t* Reserve(std::unique_ptr<std::uint8_t[]>& bytes, std::size_t count) noexcept {
  if (bytes == nullptr) {
    bytes.reset(new (std::nothrow) std::uint8_t[count]);
  }
  return bytes.get();
}

/// Checks what the sizes below rely on; the rest of a sealed batch is our own.
Fault CheckSealed(const BatchHeader& header, std::size_t batch_bytes) noexcept {
  if (header.map_bytes > kMapBytesMax || header.map_bytes % kMapEntryBytes != 0) {
    return {FaultCode::kHeader, "map bytes must be whole entries, at most", kMapBytesMax,
            header.map_bytes};
  }
  if (header.literal_bytes > kLiteralBytesMax) {
    return {FaultCode::kHeader, "literal bytes must be <=", kLiteralBytesMax,
            header.literal_bytes};
  }
  const std::uint64_t wanted =
      kBatchHeaderBytes + std::uint64_t{header.map_bytes} + header.literal_bytes;
  if (wanted != batch_bytes) {
    return {FaultCode::kHeader, "sealed batch must have bytes", wanted, batch_bytes};
  }
  return {};
}

}  // namespace

std::uint8_t* Scratch::Head() noexcept {
  return Reserve(head_, kBatchHeaderBytes + kMapBytesMax);
}

std::uint8_t* Scratch::Literals() noexcept {
  return Reserve(literals_, kLiteralBytesMax);
}

std::uint64_t BatchChecksum(const std::uint8_t* header, std::span<const std::uint8_t> map,
                            std::span<const std::uint8_t> literals) noexcept {
  // The codec is the carrier's business: a batch keeps its checksum when it is encoded anew.
  std::uint8_t neutral[kHeaderSummedBytes];
  std::memcpy(neutral, header, sizeof neutral);
  neutral[1] = 0;
  StoreLe<std::uint32_t>(neutral + 16, 0);
  const std::uint64_t literal_hash = Hash64(literals.data(), literals.size(), 0);
  const std::uint64_t header_hash = Hash64(neutral, sizeof neutral, literal_hash);
  return Hash64(map.data(), map.size(), header_hash);
}

Fault EncodeBatch(std::span<std::uint8_t> batch, Codec codec, int level, std::uint8_t* out,
                  Scratch& scratch, EncodedBatch* encoded) noexcept {
  if (batch.size() < kBatchHeaderBytes) {
    return {FaultCode::kHeader, "sealed batch must have bytes, at least", kBatchHeaderBytes,
            batch.size()};
  }
  BatchHeader header = BatchHeader::Load(batch.data());
  if (const Fault fault = CheckSealed(header, batch.size())) {
    return fault;
  }
  const std::size_t head_bytes = kBatchHeaderBytes + header.map_bytes;
  const std::span<const std::uint8_t> literals(batch.data() + head_bytes, header.literal_bytes);
  header.codec = static_cast<std::uint8_t>(Codec::kNone);
  header.wire_bytes = header.literal_bytes;
  header.Store(batch.data());
  header.checksum = BatchChecksum(
      batch.data(), {batch.data() + kBatchHeaderBytes, header.map_bytes}, literals);
  header.Store(batch.data());
  *encoded = {false, Codec::kNone, batch.size()};

  if (codec == Codec::kNone || literals.size() < 2) {
    return {};
  }
  const std::size_t wire_bytes =
      scratch.compressor().Compress(codec, level, literals.data(), literals.size(),
                                    out + head_bytes, literals.size() - 1);
  if (wire_bytes == 0) {
    return {};
  }
  header.codec = static_cast<std::uint8_t>(codec);
  header.wire_bytes = static_cast<std::uint32_t>(wire_bytes);
  std::memcpy(out, batch.data(), head_bytes);
  header.Store(out);
  *encoded = {true, codec, head_bytes + wire_bytes};
  return {};
}

}  // namespace pagelane::kernel
