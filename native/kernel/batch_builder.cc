#include "kernel/batch_builder.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <new>

namespace pagelane::kernel {

namespace {

constexpr std::size_t kEntriesMax = kMapBytesMax / kMapEntryBytes;

/// Entries of a sealed map: the encoder may split every page off its run, and names a prefix.
constexpr std::size_t SealedEntriesMax(std::uint64_t body_pages_max) noexcept {
  return kEntriesMax - static_cast<std::size_t>(body_pages_max) - kPrefixEntriesMax;
}

}  // namespace

BatchBuilder::BatchBuilder(std::uint32_t page_bits) noexcept
    : page_bits_(page_bits),
      page_bytes_(std::size_t{1} << page_bits),
      body_pages_max_(kBodyBytesMax >> page_bits),
      entries_max_(SealedEntriesMax(body_pages_max_)),
      map_(new (std::nothrow) MapEntry[kEntriesMax]) {}

void BatchBuilder::Begin(std::uint8_t* slot, std::size_t slot_bytes) noexcept {
  assert(slot_bytes >= SlotBytesMin());
  slot_ = slot;
  literal_bytes_max_ = std::min<std::uint64_t>(slot_bytes - kSlotRoomBytes, kContentBytesMax);
  entry_count_ = 0;
  body_pages_ = 0;
  sealed_ = SealedBatch{};
}

void BatchBuilder::SetEntry(bool opens_inside, std::int32_t entry_block) noexcept {
  opens_inside_ = opens_inside;
  entry_block_ = entry_block;
}

void BatchBuilder::AddMark(EntryKind kind) noexcept {
  assert(FitsEntry() && !IsPageKind(kind));
  map_[entry_count_] = MapEntry{};
  map_[entry_count_].kind = kind;
  entry_count_++;
}

void BatchBuilder::AddZero(std::uint16_t block, std::uint64_t page, bool names_block) noexcept {
  assert(FitsZero());
  AddPage(EntryKind::kZero, block, page, names_block, 0);
  sealed_.zero_pages++;
}

void BatchBuilder::AddBlank(std::uint16_t block, std::uint64_t page, bool names_block) noexcept {
  assert(FitsBody(0));
  AddPage(EntryKind::kBlank, block, page, names_block, 0);
  sealed_.blank_pages++;
  body_pages_++;
}

const std::uint8_t* BatchBuilder::AddRaw(std::uint16_t block, std::uint64_t page,
                                         bool names_block, const std::uint8_t* bytes) noexcept {
  assert(FitsBody(page_bytes_));
  std::uint8_t* const copy = slot_ + kSlotRoomBytes + sealed_.literal_bytes;
  std::memcpy(copy, bytes, page_bytes_);
  sealed_.literal_bytes += static_cast<std::uint32_t>(page_bytes_);
  AddPage(EntryKind::kRaw, block, page, names_block, 0);
  sealed_.raw_pages++;
  body_pages_++;
  return copy;
}

void BatchBuilder::AddFill(std::uint16_t block, std::uint64_t page, bool names_block,
                           std::uint64_t word) noexcept {
  assert(FitsBody(kFillBytes));
  std::uint8_t* end = slot_ + kSlotRoomBytes + sealed_.literal_bytes;
  const bool repeats_word = ExtendsRun(EntryKind::kFill, block, page, names_block) &&
                            LoadLe<std::uint64_t>(end - kFillBytes) == word;
  if (repeats_word) {
    sealed_.pages++;
    map_[entry_count_ - 1].count++;
  } else {
    StoreLe(end, word);
    sealed_.literal_bytes += kFillBytes;
    BeginRun(EntryKind::kFill, block, page, names_block, 0);
  }
  sealed_.fill_pages++;
  body_pages_++;
}

void BatchBuilder::AddForeign(EntryKind kind, std::uint16_t block, std::uint64_t page,
                              bool names_block, const std::uint8_t* bytes,
                              std::uint16_t byte_count) noexcept {
  assert(FitsBody(byte_count) && IsForeignKind(kind));
  std::memcpy(slot_ + kSlotRoomBytes + sealed_.literal_bytes, bytes, byte_count);
  sealed_.literal_bytes += byte_count;
  AddPage(kind, block, page, names_block, byte_count);
  sealed_.foreign_pages++;
  body_pages_++;
}

/// Whether a page belongs to the run that was begun last.
bool BatchBuilder::ExtendsRun(EntryKind kind, std::uint16_t block, std::uint64_t page,
                              bool names_block) const noexcept {
  if (entry_count_ == 0 || names_block || IsForeignKind(kind)) {
    return false;
  }
  const MapEntry& last = map_[entry_count_ - 1];
  return last.kind == kind && last.block == block && last.count < kRunPagesMax &&
         last.first_page + last.count == page;
}

void BatchBuilder::AddPage(EntryKind kind, std::uint16_t block, std::uint64_t page,
                           bool names_block, std::uint16_t length) noexcept {
  if (ExtendsRun(kind, block, page, names_block)) {
    sealed_.pages++;
    map_[entry_count_ - 1].count++;
  } else {
    BeginRun(kind, block, page, names_block, length);
  }
}

void BatchBuilder::BeginRun(EntryKind kind, std::uint16_t block, std::uint64_t page,
                            bool names_block, std::uint16_t length) noexcept {
  sealed_.pages++;
  MapEntry& entry = map_[entry_count_++];
  entry.kind = kind;
  entry.flags = names_block ? kEntryNamesBlock : 0;
  entry.block = block;
  entry.count = 1;
  entry.length = length;
  entry.first_page = page;
}

SealedBatch BatchBuilder::Seal() noexcept {
  const std::size_t map_bytes = entry_count_ * kMapEntryBytes;
  BatchHeader header;
  header.flags = opens_inside_ ? kHeaderInside : 0;
  header.page_bits = static_cast<std::uint8_t>(page_bits_);
  if (entry_block_ >= 0) {
    header.flags |= kHeaderHasLastBlock;
    header.last_block = static_cast<std::uint16_t>(entry_block_);
  }
  header.map_bytes = static_cast<std::uint32_t>(map_bytes);
  header.literal_bytes = sealed_.literal_bytes;
  header.wire_bytes = sealed_.literal_bytes;
  header.page_count = sealed_.pages;

  sealed_.start = kSlotRoomBytes - map_bytes - kBatchHeaderBytes;
  sealed_.end = kSlotRoomBytes + sealed_.literal_bytes;
  header.Store(slot_ + sealed_.start);
  std::uint8_t* map = slot_ + sealed_.start + kBatchHeaderBytes;
  for (std::size_t i = 0; i < entry_count_; i++) {
    map_[i].Store(map + i * kMapEntryBytes);
  }
  slot_ = nullptr;
  entry_count_ = 0;
  return sealed_;
}

}  // namespace pagelane::kernel
