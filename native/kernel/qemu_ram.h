#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "kernel/batch_builder.h"
#include "kernel/block_table.h"
#include "kernel/epoch_set.h"
#include "kernel/held_pages.h"
#include "kernel/zero_page.h"

namespace pagelane::kernel {

/// Why a cut stopped; the meaning of each value is told in src/native.ts, `CutStop`.
enum class CutStop : std::uint8_t {
  kInput = 0,
  kBatchFull = 1,
  kPageAgain = 2,
  kSectionEnd = 3,
  kUnknown = 4,
  kBadPage = 5,
};

struct CutResult {
  std::size_t used_bytes;
  CutStop stop;
};

/// Cuts the bodies of QEMU's RAM sections into page batches.
///
/// A record that lies in a chunk as a whole is read there, and its page goes straight into the
/// slot. One that is cut by the end of a chunk is put together in `held_` first; whatever stops a
/// cut, `held_` then has what earlier chunks brought of the record, and nothing of this one.
///
/// Source: QEMU, migration/ram.c, `ram_load_precopy`; docs/protocol.md, section 7.
class RamCutter {
 public:
  explicit RamCutter(std::uint32_t page_bits);
  RamCutter(const RamCutter&) = delete;
  RamCutter& operator=(const RamCutter&) = delete;

  /// True unless there was no memory for what a cutter holds.
  bool is_usable() const noexcept { return held_ != nullptr && builder_.is_usable(); }

  /// Takes new blocks. False if there is no memory for their bitmaps: then there are no blocks.
  bool SetBlocks(std::unique_ptr<const BlockTable> blocks);

  std::size_t SlotBytesMin() const noexcept { return builder_.SlotBytesMin(); }
  bool has_slot() const noexcept { return builder_.has_slot(); }
  const std::uint8_t* slot() const noexcept { return builder_.slot(); }
  /// Gives the slot of the next batch; it stays the caller's. `slot_bytes` >= SlotBytesMin().
  void Begin(std::uint8_t* slot, std::size_t slot_bytes) noexcept;
  /// Reads records from `chunk`. Needs a slot.
  CutResult Cut(std::span<const std::uint8_t> chunk) noexcept;

  /// Whether pages that keep changing may be held from now on. What is held stays so.
  void SetHolding(bool may_hold) noexcept { may_hold_ = may_hold && !has_foreign_; }
  std::size_t held_page_count() const noexcept { return held_pages_.count(); }
  /// How far a batch may reach from its next page on: `pages` of one block, ascending, `span` from
  /// the first to the last. 0 `pages` for as far as it has room.
  void SetReach(std::uint64_t pages, std::uint64_t span) noexcept {
    reach_pages_ = pages;
    reach_span_ = span;
  }
  /// Puts the pages that are held into the batch. Needs a slot; stops as `Cut` does.
  CutStop Release() noexcept;

  bool is_inside_section() const noexcept { return is_inside_section_; }
  bool MarkSectionBegin() noexcept { return Mark(EntryKind::kSectionBegin, true); }
  bool MarkSectionEnd() noexcept { return Mark(EntryKind::kSectionEnd, false); }
  void SetInside(bool is_inside) noexcept;

  std::size_t BatchEntries() const noexcept {
    return has_slot() ? builder_.entry_count() + builder_.page_count() : 0;
  }
  SealedBatch Seal() noexcept { return builder_.Seal(); }
  void BeginEpoch() noexcept { epoch_.BeginEpoch(); }

  /// What earlier chunks held of a record; valid until the next call of `Cut`.
  std::span<const std::uint8_t> held() const noexcept { return {held_.get(), held_bytes_}; }
  void ForgetHeld() noexcept { held_bytes_ = 0; }
  std::int32_t last_block() const noexcept { return last_block_; }

 private:
  /// A record as far as it could be read.
  struct Record {
    std::uint64_t flag;
    bool names_block;
    std::uint16_t block;
    std::uint64_t page;
    std::size_t head_bytes;  // header and block id
    std::size_t body_bytes;  // what follows them
  };
  enum class Read : std::uint8_t { kWhole, kPart, kEnd, kUnknown, kBadPage };

  Read ReadRecord(const std::uint8_t* bytes, std::size_t byte_count, Record* record,
                  std::size_t* needed_bytes) const noexcept;
  Read ReadBlock(const std::uint8_t* bytes, std::size_t byte_count, Record* record,
                 std::size_t* needed_bytes) const noexcept;
  Read ReadBody(const std::uint8_t* bytes, std::size_t byte_count, Record* record,
                std::size_t* needed_bytes) const noexcept;
  bool IsWithinReach(const Record& record) const noexcept;
  bool Holds(std::uint16_t block, std::uint64_t page, const std::uint8_t* body) noexcept;
  CutStop TakeBody(const Record& record, bool names_again, const std::uint8_t* body) noexcept;
  CutStop TakePage(std::uint16_t block, std::uint64_t page, bool names_again,
                   const std::uint8_t* body) noexcept;
  CutStop Take(const Record& record, const std::uint8_t* bytes) noexcept;
  CutResult CutHeld(std::span<const std::uint8_t> chunk) noexcept;
  std::int32_t FindBlock(const std::uint8_t* name, std::size_t name_bytes) const noexcept;
  bool Mark(EntryKind kind, bool is_inside) noexcept;

  const std::uint32_t page_bits_;
  const std::size_t page_bytes_;
  const std::size_t held_bytes_max_;
  const ZeroTest zero_test_;
  std::unique_ptr<const BlockTable> blocks_;
  EpochSet epoch_;
  HeldPages held_pages_;
  bool may_hold_ = false;
  bool has_foreign_ = false;
  BatchBuilder builder_;
  std::uint64_t reach_pages_ = 0;
  std::uint64_t reach_span_ = 0;
  std::uint64_t first_page_ = 0;  // of the batch, if it has one
  std::uint64_t last_page_ = 0;
  std::int32_t last_block_ = -1;
  bool is_inside_section_ = false;
  std::unique_ptr<std::uint8_t[]> held_;
  std::size_t held_bytes_ = 0;
};

}  // namespace pagelane::kernel
