#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernel/batch.h"
#include "kernel/batch_format.h"
#include "kernel/scratch.h"

namespace pagelane::kernel {

/// A batch from the wire that has been inspected, and its literals decompressed.
struct BatchContents {
  BatchHeader header;
  /// Header and map as they were inspected, whatever becomes of the bytes they were read from.
  const std::uint8_t* head = nullptr;
  std::span<const std::uint8_t> map;
  std::span<const std::uint8_t> references;
  /// As many bytes as the map takes.
  const std::uint8_t* contents = nullptr;
  DecodeRoom* room = nullptr;
};

/// Inspects a batch and decompresses its literals.
///
/// decoded: what InspectHead found.
/// Promise: writes to the thread's scratch alone. What `contents` points at stays as it is until
///          the scratch is used again or `batch` changes.
Fault OpenBatch(const Target& target, std::span<const std::uint8_t> batch, Scratch& scratch,
                DecodedBatch* decoded, BatchContents* contents) noexcept;

/// Reads the references of a map entry after entry, and checks them against the store.
class ReferenceReader {
 public:
  /// What an entry refers to.
  struct Slots {
    /// The first slot that its pages are like.
    std::uint32_t like = 0;
    /// The first slot that they are kept in, if `keeps`.
    std::uint32_t kept = 0;
    bool keeps = false;
  };

  ReferenceReader(const Target& target, std::span<const std::uint8_t> references) noexcept
      : target_(target), next_(references.data()) {}

  Fault Read(const MapEntry& entry, Slots* slots) noexcept;

 private:
  const Target& target_;
  const std::uint8_t* next_;
};

}  // namespace pagelane::kernel
