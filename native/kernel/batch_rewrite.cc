#include "kernel/batch_rewrite.h"

#include <algorithm>
#include <cstring>

#include "kernel/batch_digest.h"
#include "kernel/delta.h"
#include "kernel/limits.h"

namespace pagelane::kernel {

namespace {

/// Largest delta that is worth it: what a page compresses to is not known beforehand.
std::size_t DeltaBytesMax(Codec codec, std::size_t page_bytes) noexcept {
  return codec == Codec::kNone ? page_bytes - kReferenceBytes : page_bytes / 4;
}

Fault TooManyEntries() noexcept {
  return {FaultCode::kMap, "entries of the map must be <=", kMapEntriesMax, kMapEntriesMax + 1};
}

}  // namespace

BatchRewrite::BatchRewrite(std::span<std::uint8_t> slot, std::size_t start,
                           const EncodeOptions& options, EncodeRoom& room,
                           std::uint8_t* prefix) noexcept
    : slot_(slot.data()),
      start_(start),
      options_(options),
      room_(room),
      prefix_(prefix),
      header_(BatchHeader::Load(slot.data() + start)),
      page_bytes_(std::size_t{1} << header_.page_bits),
      delta_bytes_max_(DeltaBytesMax(options.codec, page_bytes_)) {}

Fault BatchRewrite::Run(EncodedBatch* encoded) noexcept {
  if (const Fault fault = Plan()) {
    return fault;
  }
  if (const Fault fault = Rewrite()) {
    return fault;
  }
  if (options_.finds_similar && options_.store != nullptr) {
    FindSimilar();
  }
  return Finish(encoded);
}

/// Hashes the raw pages, and asks the store about all of them at once.
Fault BatchRewrite::Plan() noexcept {
  const std::uint8_t* map = slot_ + start_ + kBatchHeaderBytes;
  std::size_t at = 0;
  for (std::size_t i = 0; i < header_.map_bytes; i += kMapEntryBytes) {
    const MapEntry entry = MapEntry::Load(map + i);
    const std::size_t byte_count = ContentBytesOf(entry, page_bytes_);
    if (byte_count > header_.literal_bytes - at) {
      return {FaultCode::kLiterals, "contents must be those of the map,", at + byte_count,
              header_.literal_bytes};
    }
    const std::uint32_t pages = entry.kind == EntryKind::kRaw ? entry.count : 0;
    if (pages > kBodyPagesMax - query_count_) {
      return {FaultCode::kMap, "raw pages must be <=", kBodyPagesMax, query_count_ + pages};
    }
    for (std::uint32_t index = 0; index < pages; index++) {
      PageQuery& query = room_.queries[query_count_++];
      query = PageQuery{};
      query.block = entry.block;
      query.page = entry.first_page + index;
      query.bytes = slot_ + kSlotRoomBytes + at + index * page_bytes_;
      query.hash = BatchDigest::HashOf(query.bytes, page_bytes_);
    }
    at += byte_count;
  }
  if (at != header_.literal_bytes) {
    return {FaultCode::kLiterals, "contents must be those of the map,", at,
            header_.literal_bytes};
  }
  if (options_.store != nullptr && query_count_ > 0) {
    options_.store->Plan({room_.queries, query_count_}, options_.place, options_.keeps);
  }
  return {};
}

Fault BatchRewrite::Rewrite() noexcept {
  const std::uint8_t* map = slot_ + start_ + kBatchHeaderBytes;
  for (std::size_t i = 0; i < header_.map_bytes; i += kMapEntryBytes) {
    const MapEntry entry = MapEntry::Load(map + i);
    if (entry.kind == EntryKind::kRaw) {
      if (const Fault fault = RewriteRun(entry)) {
        return fault;
      }
      continue;
    }
    if (entry_count_ == kMapEntriesMax) {
      return TooManyEntries();
    }
    Copy(entry, ContentBytesOf(entry, page_bytes_));
  }
  return {};
}

/// An entry that stays as it is.
void BatchRewrite::Copy(const MapEntry& entry, std::size_t byte_count) noexcept {
  std::uint8_t* contents = slot_ + kSlotRoomBytes;
  if (read_ != written_) {
    std::memmove(contents + written_, contents + read_, byte_count);
  }
  read_ += byte_count;
  written_ += byte_count;
  room_.entries[entry_count_++] = entry;
}

Fault BatchRewrite::RewriteRun(const MapEntry& entry) noexcept {
  for (std::uint32_t index = 0; index < entry.count; index++) {
    if (const Fault fault = RewritePage(entry, index, room_.queries[next_query_])) {
      return fault;
    }
    next_query_++;
  }
  return {};
}

Fault BatchRewrite::RewritePage(const MapEntry& run, std::uint32_t index,
                                const PageQuery& query) noexcept {
  MapEntry page = run;
  page.flags = index == 0 ? run.flags : 0;
  page.count = 1;
  page.first_page = run.first_page + index;
  counts_.again_pages += query.is_again ? 1 : 0;
  std::uint8_t* target = slot_ + kSlotRoomBytes + written_;
  read_ += page_bytes_;

  if (query.same != kNoSlot &&
      std::memcmp(options_.store->pages().At(query.same), query.bytes, page_bytes_) == 0) {
    page.kind = EntryKind::kSame;
    counts_.same_pages++;
    return Emit(page, query.same, kNoSlot);
  }
  DeltaResult delta{false, 0};
  if (query.base != kNoSlot) {
    delta = EncodeDelta(options_.store->pages().At(query.base), query.bytes, page_bytes_,
                        room_.delta, delta_bytes_max_);
    if (!delta.fits) {
      AddPrefix(query.base);
    }
  }
  if (query.keep != kNoSlot) {
    std::memcpy(options_.store->pages().At(query.keep), query.bytes, page_bytes_);
  }
  if (delta.fits) {
    std::memcpy(target, room_.delta, delta.bytes);
    written_ += delta.bytes;
    page.kind = EntryKind::kDelta;
    page.length = static_cast<std::uint16_t>(delta.bytes);
    counts_.delta_pages++;
    counts_.delta_bytes += static_cast<std::uint32_t>(delta.bytes);
    return Emit(page, query.base, query.keep);
  }
  if (target != query.bytes) {
    std::memmove(target, query.bytes, page_bytes_);
  }
  if (options_.finds_similar) {
    PageFeatures& features = room_.features[feature_count_++];
    FindFeatures(target, page_bytes_, features.features);
    features.slot = query.keep;
  }
  written_ += page_bytes_;
  return Emit(page, kNoSlot, query.keep);
}

/// Adds a page to the map, to the run before it if it continues that.
Fault BatchRewrite::Emit(const MapEntry& page, std::uint32_t like, std::uint32_t keep) noexcept {
  const std::uint8_t keeps = keep == kNoSlot ? 0 : kEntryKeeps;
  if (entry_count_ > 0 && page.kind != EntryKind::kDelta && page.flags == 0) {
    MapEntry& last = room_.entries[entry_count_ - 1];
    const bool continues = last.kind == page.kind && last.block == page.block &&
                           (last.flags & kEntryKeeps) == keeps &&
                           last.first_page + last.count == page.first_page;
    if (continues && (like == kNoSlot || last_like_ + last.count == like) &&
        (keep == kNoSlot || last_keep_ + last.count == keep)) {
      last.count++;
      return {};
    }
  }
  if (entry_count_ == kMapEntriesMax) {
    return TooManyEntries();
  }
  MapEntry& entry = room_.entries[entry_count_++];
  entry = page;
  entry.flags |= keeps;
  last_like_ = like;
  last_keep_ = keep;
  if (like != kNoSlot) {
    room_.references[reference_count_++] = like;
  }
  if (keep != kNoSlot) {
    room_.references[reference_count_++] = keep;
  }
  return {};
}

/// Puts a page of the store in front of the literals, if there is room.
void BatchRewrite::AddPrefix(std::uint32_t slot) noexcept {
  if (options_.codec != Codec::kZstd || prefix_bytes_ + page_bytes_ > kPrefixBytesMax) {
    return;
  }
  MapEntry* last = prefix_run_count_ == 0 ? nullptr : &room_.prefix[prefix_run_count_ - 1];
  if (last != nullptr && last->first_page + last->count == slot) {
    last->count++;
  } else if (prefix_run_count_ < kPrefixEntriesMax) {
    MapEntry& run = room_.prefix[prefix_run_count_++];
    run = MapEntry{};
    run.kind = EntryKind::kPrefix;
    run.count = 1;
    run.first_page = slot;
  } else {
    return;
  }
  std::memcpy(prefix_ + prefix_bytes_, options_.store->pages().At(slot), page_bytes_);
  prefix_bytes_ += page_bytes_;
}

void BatchRewrite::FindSimilar() noexcept {
  const std::size_t room = (kPrefixBytesMax - prefix_bytes_) / page_bytes_;
  const std::size_t count = options_.store->FindSimilar(
      {room_.features, feature_count_}, options_.place, {room_.similar, room});
  for (std::size_t i = 0; i < count; i++) {
    AddPrefix(room_.similar[i]);
  }
}

/// Lays header, map and references in front of the contents, and makes the checksum.
Fault BatchRewrite::Finish(EncodedBatch* encoded) noexcept {
  const std::size_t prefix_runs = prefix_run_count_;
  if (entry_count_ + prefix_runs > kMapEntriesMax) {
    return TooManyEntries();
  }
  const std::size_t reference_bytes = reference_count_ * kReferenceBytes;
  const std::size_t map_bytes = (prefix_runs + entry_count_) * kMapEntryBytes;
  std::uint8_t* references = slot_ + kSlotRoomBytes - reference_bytes;
  std::uint8_t* map = references - map_bytes;
  std::uint8_t* head = map - kBatchHeaderBytes;
  for (std::size_t i = 0; i < reference_count_; i++) {
    StoreLe(references + i * kReferenceBytes, room_.references[i]);
  }
  for (std::size_t i = 0; i < prefix_runs; i++) {
    room_.prefix[i].Store(map + i * kMapEntryBytes);
  }
  for (std::size_t i = 0; i < entry_count_; i++) {
    room_.entries[i].Store(map + (prefix_runs + i) * kMapEntryBytes);
  }
  header_.codec = static_cast<std::uint8_t>(Codec::kNone);
  header_.map_bytes = static_cast<std::uint32_t>(map_bytes);
  header_.literal_bytes = static_cast<std::uint32_t>(reference_bytes + written_);
  header_.wire_bytes = header_.literal_bytes;
  header_.number = options_.place.number;
  header_.base = options_.place.base;
  header_.Store(head);

  header_.checksum = Checksum(head, {map, map_bytes}, {references, reference_bytes});
  header_.Store(head);

  counts_.start = static_cast<std::size_t>(head - slot_);
  counts_.end = kSlotRoomBytes + written_;
  counts_.literal_bytes = header_.literal_bytes;
  *encoded = counts_;
  return {};
}

/// Of what the receiver will have; raw pages were hashed before anything else was done with them.
std::uint64_t BatchRewrite::Checksum(const std::uint8_t* head, std::span<const std::uint8_t> map,
                                     std::span<const std::uint8_t> references) noexcept {
  BatchDigest digest(head, map, references);
  const std::uint8_t* contents = slot_ + kSlotRoomBytes;
  std::size_t query = 0;
  for (std::size_t i = 0; i < entry_count_; i++) {
    const MapEntry& entry = room_.entries[i];
    if (entry.kind == EntryKind::kFill) {
      FillPage(contents, room_.delta, page_bytes_);
      const std::uint64_t hash = BatchDigest::HashOf(room_.delta, page_bytes_);
      for (std::uint32_t page = 0; page < entry.count; page++) {
        digest.AddHash(hash);
      }
    } else if (IsForeignKind(entry.kind)) {
      digest.AddHash(BatchDigest::HashOf(contents, entry.length));
    } else if (entry.kind != EntryKind::kZero && entry.kind != EntryKind::kBlank) {
      for (std::uint32_t page = 0; page < entry.count; page++) {
        digest.AddHash(room_.queries[query++].hash);
      }
    }
    contents += ContentBytesOf(entry, page_bytes_);
  }
  return digest.value();
}

}  // namespace pagelane::kernel
