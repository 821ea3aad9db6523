#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernel/batch.h"
#include "kernel/batch_format.h"
#include "kernel/scratch.h"

namespace pagelane::kernel {

/// Turns a sealed batch of plain pages into one that refers to what the receiver has.
///
///   1. hash     every raw page, and every other content the checksum covers
///   2. plan     what the store has for each, in one visit
///   3. rewrite  map and contents: same pages shrink to a reference, changed ones to a delta
///   4. prefix   earlier versions that no delta fits, and similar pages, help to compress the rest
///
/// Contents only ever move towards the beginning of the slot.
class BatchRewrite {
 public:
  /// slot: with the sealed batch's header at `start`.
  BatchRewrite(std::span<std::uint8_t> slot, std::size_t start, const EncodeOptions& options,
               EncodeRoom& room, std::uint8_t* prefix) noexcept;

  /// Does all of it, and writes header, map and references in front of the contents.
  Fault Run(EncodedBatch* encoded) noexcept;

  /// What the literals are to be compressed with in front of them.
  std::span<const std::uint8_t> prefix() const noexcept { return {prefix_, prefix_bytes_}; }

 private:
  Fault Plan() noexcept;
  Fault Rewrite() noexcept;
  Fault RewriteRun(const MapEntry& entry) noexcept;
  Fault RewritePage(const MapEntry& run, std::uint32_t index, const PageQuery& query) noexcept;
  void Copy(const MapEntry& entry, std::size_t byte_count) noexcept;
  void AddPrefix(std::uint32_t slot) noexcept;
  void FindSimilar() noexcept;
  Fault Emit(const MapEntry& page, std::uint32_t like, std::uint32_t keep) noexcept;
  Fault Finish(EncodedBatch* encoded) noexcept;
  std::uint64_t Checksum(const std::uint8_t* head, std::span<const std::uint8_t> map,
                         std::span<const std::uint8_t> references) noexcept;

  std::uint8_t* const slot_;
  const std::size_t start_;
  const EncodeOptions& options_;
  EncodeRoom& room_;
  std::uint8_t* const prefix_;
  BatchHeader header_;
  const std::size_t page_bytes_;
  const std::size_t delta_bytes_max_;

  std::size_t query_count_ = 0;
  std::size_t next_query_ = 0;
  /// Contents read and written, counted from kSlotRoomBytes.
  std::size_t read_ = 0;
  std::size_t written_ = 0;
  std::size_t entry_count_ = 0;
  std::size_t reference_count_ = 0;
  std::uint32_t last_like_ = kNoSlot;
  std::uint32_t last_keep_ = kNoSlot;
  std::size_t feature_count_ = 0;
  std::size_t prefix_run_count_ = 0;
  std::size_t prefix_bytes_ = 0;
  EncodedBatch counts_;
};

}  // namespace pagelane::kernel
