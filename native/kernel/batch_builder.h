#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "kernel/batch_format.h"
#include "kernel/limits.h"

namespace pagelane::kernel {

/// What a sealed batch is made of. Offsets are counted from the beginning of its slot.
struct SealedBatch {
  std::size_t start = 0;
  std::size_t end = 0;
  std::uint32_t pages = 0;
  std::uint32_t zero_pages = 0;
  std::uint32_t raw_pages = 0;
  std::uint32_t blank_pages = 0;
  std::uint32_t foreign_pages = 0;
  std::uint32_t fill_pages = 0;
  std::uint32_t literal_bytes = 0;
};

/// Gathers pages in a slot, and writes header and map in front of their literals at the end.
///
///     | room (kSlotRoomBytes)              | literals, growing |
///     |         header, map of the seal →  |
///
/// The slot is the caller's; nothing outside it is written. The `Fits…` functions say whether a
/// limit of the protocol would be passed; the `Add…` functions must not be called if one says no.
class BatchBuilder {
 public:
  explicit BatchBuilder(std::uint32_t page_bits) noexcept;

  /// True unless there was no memory for the map.
  bool is_usable() const noexcept { return map_ != nullptr; }

  /// Smallest slot that any one record fits in.
  std::size_t SlotBytesMin() const noexcept { return kSlotRoomBytes + 2 * page_bytes_; }

  /// Begins a batch; `slot_bytes` >= SlotBytesMin().
  void Begin(std::uint8_t* slot, std::size_t slot_bytes) noexcept;
  /// What is so before the batch: whether the source has a RAM section open, and the block it named
  /// last, -1 if there is none.
  void SetEntry(bool opens_inside, std::int32_t entry_block) noexcept;

  bool has_slot() const noexcept { return slot_ != nullptr; }
  const std::uint8_t* slot() const noexcept { return slot_; }
  std::size_t entry_count() const noexcept { return entry_count_; }
  std::uint64_t page_count() const noexcept { return sealed_.pages; }

  /// Whether another map entry fits. A page that extends the last run needs none, but that is
  /// left out of the question: it keeps one rule for all records.
  bool FitsEntry() const noexcept { return entry_count_ < entries_max_; }
  bool FitsZero() const noexcept { return FitsEntry() && sealed_.zero_pages < kZeroPagesMax; }
  /// Whether a raw, blank or foreign page with `literal_bytes` of literals fits.
  bool FitsBody(std::uint64_t literal_bytes) const noexcept {
    return FitsEntry() && body_pages_ < body_pages_max_ &&
           sealed_.literal_bytes + literal_bytes <= literal_bytes_max_;
  }

  void AddMark(EntryKind kind) noexcept;
  void AddZero(std::uint16_t block, std::uint64_t page, bool names_block) noexcept;
  void AddBlank(std::uint16_t block, std::uint64_t page, bool names_block) noexcept;
  /// Returns: the copy in the slot.
  const std::uint8_t* AddRaw(std::uint16_t block, std::uint64_t page, bool names_block,
                             const std::uint8_t* bytes) noexcept;
  /// word: what the page repeats.
  void AddFill(std::uint16_t block, std::uint64_t page, bool names_block,
               std::uint64_t word) noexcept;
  void AddForeign(EntryKind kind, std::uint16_t block, std::uint64_t page, bool names_block,
                  const std::uint8_t* bytes, std::uint16_t byte_count) noexcept;

  /// Writes header (without checksum) and map, and lets go of the slot.
  SealedBatch Seal() noexcept;

 private:
  bool ExtendsRun(EntryKind kind, std::uint16_t block, std::uint64_t page,
                  bool names_block) const noexcept;
  void BeginRun(EntryKind kind, std::uint16_t block, std::uint64_t page, bool names_block,
                std::uint16_t length) noexcept;
  void AddPage(EntryKind kind, std::uint16_t block, std::uint64_t page, bool names_block,
               std::uint16_t length) noexcept;

  const std::uint32_t page_bits_;
  const std::size_t page_bytes_;
  const std::uint64_t body_pages_max_;
  const std::size_t entries_max_;
  std::unique_ptr<MapEntry[]> map_;

  std::uint8_t* slot_ = nullptr;
  std::uint64_t literal_bytes_max_ = 0;
  bool opens_inside_ = false;
  std::int32_t entry_block_ = -1;
  std::size_t entry_count_ = 0;
  std::uint64_t body_pages_ = 0;
  SealedBatch sealed_;
};

}  // namespace pagelane::kernel
