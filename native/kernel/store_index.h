#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <span>

#include "kernel/block_table.h"
#include "kernel/page_map.h"
#include "kernel/page_store.h"
#include "kernel/similarity.h"

namespace pagelane::kernel {

inline constexpr std::uint32_t kNoSlot = UINT32_MAX;

/// Place of a batch among the batches of its stream.
struct BatchPlace {
  /// Its number, counted from 0.
  std::uint32_t number = 0;
  /// All batches with a lower number are acknowledged.
  std::uint32_t base = 0;
};

/// A page of a batch, and what the store has for it.
struct PageQuery {
  std::uint16_t block = 0;
  std::uint64_t page = 0;
  std::uint64_t hash = 0;
  const std::uint8_t* bytes = nullptr;

  /* Answers: slots, or kNoSlot */
  /// Holds a page with the same hash. Bytes decide.
  std::uint32_t same = kNoSlot;
  /// Holds an earlier version of this page.
  std::uint32_t base = kNoSlot;
  /// Where this batch may keep the page; it may be the slot of the earlier version.
  std::uint32_t keep = kNoSlot;
  /// Whether the page was sent before.
  bool is_again = false;
};

/// What a literal page of a batch is like, and the slot it is kept in, kNoSlot if it is not.
struct PageFeatures {
  std::array<std::uint32_t, kFeatures> features;
  std::uint32_t slot = kNoSlot;
};

/// The source's side of a page store: what each slot holds, and who still needs it.
///
/// Rules that make the references safe, whatever way batches take:
///   - a batch refers only to slots whose batch is below its base, so that the receiver has it;
///   - a slot is only kept in anew if the batch that filled it, and all that refer to it, are below
///     the new batch's base: so nobody reads it any more.
///
/// All functions may be called from any thread.
class StoreIndex {
 public:
  /// An index of `slot_count` empty slots for the pages of `blocks`.
  StoreIndex(const BlockTable& blocks, std::uint32_t slot_count);
  StoreIndex(const StoreIndex&) = delete;
  StoreIndex& operator=(const StoreIndex&) = delete;

  /// False if there was no memory.
  bool is_usable() const noexcept { return is_usable_; }
  PageStore& pages() noexcept { return pages_; }

  /// Answers for all pages of a batch, and sets aside what the answers name.
  ///
  /// keeps: whether pages that were never sent before get a slot, too.
  void Plan(std::span<PageQuery> queries, BatchPlace place, bool keeps) noexcept;

  /// Finds slots of pages that share features with those of a batch, as many as `slots` has room
  /// for, those that are named most; then notes the batch's own that are kept.
  ///
  /// Returns: how many were written to `slots`, in ascending order.
  std::size_t FindSimilar(std::span<const PageFeatures> pages, BatchPlace place,
                          std::span<std::uint32_t> slots) noexcept;

 private:
  struct Slot {
    std::uint64_t hash;
    std::uint64_t page;
    std::uint32_t filled_by;  // number of a batch, plus 1; 0 if it was never filled
    std::uint32_t used_by;    // the latest batch that refers to it, plus 1
    std::uint16_t block;
  };
  struct Freed {
    void operator()(void* memory) const noexcept { std::free(memory); }
  };
  /// Zeros at first, and no memory taken where nothing is written.
  template <typename Element>
  using Table = std::unique_ptr<Element[], Freed>;
  template <typename Element>
  static Table<Element> MakeTable(std::size_t count) noexcept {
    return Table<Element>(static_cast<Element*>(std::calloc(count, sizeof(Element))));
  }

  bool HasArrived(const Slot& slot, BatchPlace place) const noexcept {
    return slot.filled_by != 0 && slot.filled_by <= place.base;
  }
  bool IsIdle(const Slot& slot, BatchPlace place) const noexcept {
    return slot.filled_by <= place.base && slot.used_by <= place.base;
  }
  void Answer(PageQuery& query, BatchPlace place, bool keeps) noexcept;
  std::uint32_t FindHash(std::uint64_t hash, BatchPlace place) const noexcept;
  void AddHash(std::uint64_t hash, std::uint32_t slot) noexcept;
  std::uint32_t TakeSlot(BatchPlace place, bool is_again) noexcept;
  void Fill(std::uint32_t slot, const PageQuery& query, BatchPlace place) noexcept;
  void Use(std::uint32_t slot, BatchPlace place) noexcept;

  std::mutex mutex_;
  PageStore pages_;
  bool is_usable_ = false;
  Table<Slot> slots_;
  /// Slots, plus 1, by hash: buckets of one cache line.
  Table<std::uint32_t> by_hash_;
  std::size_t bucket_mask_ = 0;
  /// Slots, plus 1, by feature: the latest for each.
  Table<std::uint32_t> by_feature_;
  std::size_t feature_mask_ = 0;
  /// Slots, plus 1, by guest page; kSentOnly for one that was sent and not kept.
  PageMap by_page_;
  std::uint32_t next_slot_ = 0;
  bool has_wrapped_ = false;
};

}  // namespace pagelane::kernel
