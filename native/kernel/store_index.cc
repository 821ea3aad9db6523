#include "kernel/store_index.h"

#include <algorithm>
#include <bit>

namespace pagelane::kernel {

namespace {

/* Chosen by us */
constexpr std::size_t kBucketSlots = 16;  // one cache line
/// Slots looked at for one that nobody needs any more.
constexpr int kTakeTries = 8;
constexpr std::size_t kFeatureSlotsMin = 1024;
/// Pages that may be candidates for a prefix before the best are chosen.
constexpr std::size_t kCandidatesMax = 2048;

constexpr std::uint32_t kSentOnly = UINT32_MAX;

std::size_t PlaceOf(std::uint32_t feature, std::size_t which, std::size_t mask) noexcept {
  const std::size_t spread = (feature * std::size_t{0x9E3779B97F4A7C15}) >> 20;
  return (spread * kFeatures + which) & mask;
}

}  // namespace

StoreIndex::StoreIndex(const BlockTable& blocks, std::uint32_t slot_count)
    : pages_(blocks.page_bits(), slot_count) {
  const std::size_t buckets = std::bit_ceil(std::size_t{slot_count} * 2 / kBucketSlots + 1);
  const std::size_t features =
      std::max(kFeatureSlotsMin, std::bit_ceil(std::size_t{slot_count} * kFeatures * 2));
  slots_ = MakeTable<Slot>(slot_count);
  by_hash_ = MakeTable<std::uint32_t>(buckets * kBucketSlots);
  by_feature_ = MakeTable<std::uint32_t>(features);
  bucket_mask_ = buckets - 1;
  feature_mask_ = features - 1;
  is_usable_ = pages_.is_usable() && slots_ != nullptr && by_hash_ != nullptr &&
               by_feature_ != nullptr && by_page_.Reset(blocks);
}

void StoreIndex::Plan(std::span<PageQuery> queries, BatchPlace place, bool keeps) noexcept {
  const std::lock_guard lock(mutex_);
  for (PageQuery& query : queries) {
    Answer(query, place, keeps);
  }
}

void StoreIndex::Answer(PageQuery& query, BatchPlace place, bool keeps) noexcept {
  if (!by_page_.Has(query.block, query.page)) {
    return;
  }
  std::uint32_t& known = by_page_.At(query.block, query.page);
  query.is_again = known != 0;
  query.same = FindHash(query.hash, place);
  if (query.same != kNoSlot) {
    Use(query.same, place);
  }
  if (known != 0 && known != kSentOnly) {
    const std::uint32_t own = known - 1;
    const bool is_idle = IsIdle(slots_[own], place);
    if (HasArrived(slots_[own], place)) {
      query.base = own;
      Use(own, place);
    }
    // Kept where its earlier version is: the receiver reads that before it writes.
    query.keep = is_idle && query.same == kNoSlot ? own : kNoSlot;
  } else if ((keeps || query.is_again) && query.same == kNoSlot) {
    // One that changed once will change again, and there are few of them.
    query.keep = TakeSlot(place, query.is_again);
  }
  if (query.keep != kNoSlot) {
    Fill(query.keep, query, place);
  } else if (known == 0) {
    known = kSentOnly;
  }
}

std::uint32_t StoreIndex::FindHash(std::uint64_t hash, BatchPlace place) const noexcept {
  const std::uint32_t* bucket = &by_hash_[(hash & bucket_mask_) * kBucketSlots];
  for (std::size_t i = 0; i < kBucketSlots; i++) {
    if (bucket[i] == 0) {
      break;
    }
    const std::uint32_t slot = bucket[i] - 1;
    if (slots_[slot].hash == hash && HasArrived(slots_[slot], place)) {
      return slot;
    }
  }
  return kNoSlot;
}

/// The latest slot is first in its bucket; the oldest of a full bucket is forgotten.
void StoreIndex::AddHash(std::uint64_t hash, std::uint32_t slot) noexcept {
  std::uint32_t* bucket = &by_hash_[(hash & bucket_mask_) * kBucketSlots];
  std::copy_backward(bucket, bucket + kBucketSlots - 1, bucket + kBucketSlots);
  bucket[0] = slot + 1;
}

/// A slot that nobody needs, kNoSlot if none is at hand.
///
/// Once all are in use only a page that was sent before takes the place of another: one that
/// changed once will change again, and one that is new may never be needed.
std::uint32_t StoreIndex::TakeSlot(BatchPlace place, bool is_again) noexcept {
  if (has_wrapped_ && !is_again) {
    return kNoSlot;
  }
  for (int tries = 0; tries < kTakeTries; tries++) {
    const std::uint32_t slot = next_slot_;
    next_slot_++;
    if (next_slot_ == pages_.slot_count()) {
      next_slot_ = 0;
      has_wrapped_ = true;
    }
    if (IsIdle(slots_[slot], place)) {
      return slot;
    }
  }
  return kNoSlot;
}

void StoreIndex::Fill(std::uint32_t slot, const PageQuery& query, BatchPlace place) noexcept {
  Slot& filled = slots_[slot];
  if (filled.filled_by != 0) {
    std::uint32_t& owner = by_page_.At(filled.block, filled.page);
    if (owner == slot + 1) {
      owner = kSentOnly;
    }
  }
  by_page_.At(query.block, query.page) = slot + 1;
  filled.hash = query.hash;
  filled.block = query.block;
  filled.page = query.page;
  filled.filled_by = place.number + 1;
  filled.used_by = 0;
  AddHash(query.hash, slot);
}

void StoreIndex::Use(std::uint32_t slot, BatchPlace place) noexcept {
  slots_[slot].used_by = std::max(slots_[slot].used_by, place.number + 1);
}

std::size_t StoreIndex::FindSimilar(std::span<const PageFeatures> pages, BatchPlace place,
                                    std::span<std::uint32_t> slots) noexcept {
  std::array<std::uint32_t, kCandidatesMax> candidates;
  std::size_t count = 0;
  const std::lock_guard lock(mutex_);
  for (const PageFeatures& page : pages) {
    for (std::size_t which = 0; which < kFeatures && count < kCandidatesMax; which++) {
      std::uint32_t& named = by_feature_[PlaceOf(page.features[which], which, feature_mask_)];
      if (named != 0 && HasArrived(slots_[named - 1], place)) {
        candidates[count++] = named - 1;
      }
      named = page.slot == kNoSlot ? named : page.slot + 1;
    }
  }
  // Named by most features first; slots of the same rank in their order, which is mostly the
  // guest's own.
  std::sort(candidates.begin(), candidates.begin() + count);
  std::array<std::uint64_t, kCandidatesMax> ranked;
  std::size_t ranks = 0;
  for (std::size_t i = 0; i < count;) {
    std::size_t end = i;
    while (end < count && candidates[end] == candidates[i]) {
      end++;
    }
    ranked[ranks++] = (kCandidatesMax - (end - i)) << 32 | candidates[i];
    i = end;
  }
  const std::size_t found = std::min(ranks, slots.size());
  std::partial_sort(ranked.begin(), ranked.begin() + found, ranked.begin() + ranks);
  for (std::size_t i = 0; i < found; i++) {
    slots[i] = static_cast<std::uint32_t>(ranked[i]);
    Use(slots[i], place);
  }
  std::sort(slots.begin(), slots.begin() + found);
  return found;
}

}  // namespace pagelane::kernel
