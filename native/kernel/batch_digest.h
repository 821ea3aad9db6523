#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "kernel/batch_format.h"
#include "kernel/hash.h"

namespace pagelane::kernel {

/// The checksum of a batch, made of what the receiver has when it has decoded it.
///
/// Order: header, map, references, then the hash of each page that is neither zero nor blank, and
/// of each foreign record, in the order of the map.
class BatchDigest {
 public:
  /// header: kBatchHeaderBytes.
  BatchDigest(const std::uint8_t* header, std::span<const std::uint8_t> map,
              std::span<const std::uint8_t> references) noexcept {
    // How literals are compressed is the carrier's business.
    std::uint8_t neutral[kHeaderSummedBytes];
    std::memcpy(neutral, header, sizeof neutral);
    neutral[1] = 0;
    StoreLe<std::uint32_t>(neutral + 16, 0);
    value_ = Hash64(neutral, sizeof neutral, 0);
    value_ = Hash64(map.data(), map.size(), value_);
    value_ = Hash64(references.data(), references.size(), value_);
  }

  static std::uint64_t HashOf(const std::uint8_t* bytes, std::size_t byte_count) noexcept {
    return Hash64(bytes, byte_count, 0);
  }

  void AddHash(std::uint64_t hash) noexcept {
    std::uint8_t bytes[sizeof hash];
    StoreLe(bytes, hash);
    value_ = Hash64(bytes, sizeof bytes, value_);
  }

  std::uint64_t value() const noexcept { return value_; }

 private:
  std::uint64_t value_;
};

}  // namespace pagelane::kernel
