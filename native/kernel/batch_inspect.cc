#include "kernel/batch.h"
#include "kernel/limits.h"
#include "kernel/qemu_format.h"

namespace pagelane::kernel {

namespace {

/// Checks a header by itself.
Fault CheckHeader(const Target& target, std::span<const std::uint8_t> head,
                  std::size_t batch_bytes, BatchHeader* loaded) noexcept {
  if (batch_bytes < kBatchHeaderBytes) {
    return {FaultCode::kHeader, "batch bytes must be >=", kBatchHeaderBytes, batch_bytes};
  }
  if (batch_bytes > kPayloadBytesMax) {
    return {FaultCode::kHeader, "batch bytes must be <=", kPayloadBytesMax, batch_bytes};
  }
  const BatchHeader header = BatchHeader::Load(head.data());
  *loaded = header;
  if (head[0] != kBatchMessage) {
    return {FaultCode::kHeader, "message kind must be", kBatchMessage, head[0]};
  }
  if (header.codec > static_cast<std::uint8_t>(Codec::kZstd)) {
    return {FaultCode::kCodec, "codec must be <=", static_cast<std::uint64_t>(Codec::kZstd),
            header.codec};
  }
  if ((header.flags & ~(kHeaderInside | kHeaderHasLastBlock)) != 0) {
    return {FaultCode::kHeader, "flags must be within", kHeaderInside | kHeaderHasLastBlock,
            header.flags};
  }
  if (header.page_bits != target.blocks->page_bits()) {
    return {FaultCode::kHeader, "page bits must be", target.blocks->page_bits(),
            header.page_bits};
  }
  const std::uint64_t reserved = LoadLe<std::uint16_t>(head.data() + 6);
  if (reserved != 0) {
    return {FaultCode::kHeader, "reserved bytes must be", 0, reserved};
  }
  const bool has_last_block = (header.flags & kHeaderHasLastBlock) != 0;
  if (!has_last_block && header.last_block != 0) {
    return {FaultCode::kHeader, "last block that is not valid must be", 0, header.last_block};
  }
  if (has_last_block && header.last_block >= target.blocks->count()) {
    return {FaultCode::kHeader, "last block must be <", target.blocks->count(),
            header.last_block};
  }
  if (header.map_bytes > kMapBytesMax || header.map_bytes % kMapEntryBytes != 0) {
    return {FaultCode::kHeader, "map bytes must be whole entries, at most", kMapBytesMax,
            header.map_bytes};
  }
  return {};
}

/// Checks the sizes of the literals against each other and against the bytes that are there.
Fault CheckSizes(const BatchHeader& header, std::size_t batch_bytes) noexcept {
  if (header.number > kBatchNumberMax) {
    return {FaultCode::kHeader, "number must be <=", kBatchNumberMax, header.number};
  }
  if (header.base > header.number) {
    return {FaultCode::kReference, "base must be <=", header.number, header.base};
  }
  if (header.literal_bytes > kLiteralBytesMax) {
    return {FaultCode::kLiterals, "literal bytes must be <=", kLiteralBytesMax,
            header.literal_bytes};
  }
  const std::uint64_t head_bytes = kBatchHeaderBytes + std::uint64_t{header.map_bytes};
  if (head_bytes > batch_bytes) {
    return {FaultCode::kHeader, "header and map must have bytes, at most", batch_bytes,
            head_bytes};
  }
  if (header.wire_bytes != batch_bytes - head_bytes) {
    return {FaultCode::kLiterals, "literal bytes on the wire must be", batch_bytes - head_bytes,
            header.wire_bytes};
  }
  const bool is_plain = header.codec == static_cast<std::uint8_t>(Codec::kNone);
  if (is_plain && header.wire_bytes != header.literal_bytes) {
    return {FaultCode::kLiterals, "literal bytes without a codec must be", header.wire_bytes,
            header.literal_bytes};
  }
  if (!is_plain && header.literal_bytes == 0) {
    return {FaultCode::kCodec, "codec without literals must be", 0, header.codec};
  }
  return {};
}

/// Walks the map, checks each entry and adds up what it takes.
class MapWalk {
 public:
  MapWalk(const Target& target, DecodedBatch* decoded) noexcept
      : target_(target), blocks_(*target.blocks), decoded_(*decoded) {
    is_inside_ = decoded_.opens_inside;
    previous_block_ = decoded_.entry_block;
  }

  Fault Walk(const std::uint8_t* map, std::size_t map_bytes) noexcept {
    for (std::size_t at = 0; at < map_bytes; at += kMapEntryBytes) {
      const MapEntry entry = MapEntry::Load(map + at);
      const Fault fault = Take(entry);
      if (fault) {
        return fault;
      }
    }
    decoded_.ends_inside = is_inside_;
    return {};
  }

  Fault CheckTotals(const BatchHeader& header) const noexcept {
    if (decoded_.pages != header.page_count) {
      return {FaultCode::kMap, "page count must be that of the map,", decoded_.pages,
              header.page_count};
    }
    if (literal_bytes_ != header.literal_bytes) {
      return {FaultCode::kLiterals, "literal bytes must be those of the map,", literal_bytes_,
              header.literal_bytes};
    }
    return {};
  }

 private:
  Fault Take(const MapEntry& entry) noexcept {
    if (entry.kind == EntryKind::kPrefix) {
      return TakePrefix(entry);
    }
    return IsPageKind(entry.kind) ? TakePages(entry) : TakeMark(entry);
  }

  /// Pages of the store that the literals were compressed with.
  Fault TakePrefix(const MapEntry& entry) noexcept {
    if (entry.flags != 0 || entry.block != 0 || entry.length != 0) {
      return {FaultCode::kMap, "fields of a prefix must be", 0, 1};
    }
    if (entry.count == 0) {
      return {FaultCode::kMap, "pages of a prefix must be >=", 1, 0};
    }
    prefix_pages_ += entry.count;
    const std::uint64_t pages_max = kPrefixBytesMax >> blocks_.page_bits();
    if (prefix_pages_ > pages_max) {
      return {FaultCode::kMap, "pages of all prefixes must be <=", pages_max, prefix_pages_};
    }
    return CheckSlots(target_, entry.first_page, entry.count);
  }

  Fault TakeMark(const MapEntry& entry) noexcept {
    const bool is_begin = entry.kind == EntryKind::kSectionBegin;
    if (!is_begin && entry.kind != EntryKind::kSectionEnd) {
      return {FaultCode::kMap, "entry kind of no page must be <=",
              static_cast<std::uint64_t>(EntryKind::kSectionEnd),
              static_cast<std::uint64_t>(entry.kind)};
    }
    if (entry.flags != 0 || entry.block != 0 || entry.count != 0 || entry.length != 0 ||
        entry.first_page != 0) {
      return {FaultCode::kMap, "fields of a section mark must be", 0, 1};
    }
    if (is_inside_ == is_begin) {
      return {FaultCode::kMap, "sections open before a section mark must be",
              is_begin ? 0U : 1U, is_inside_ ? 1U : 0U};
    }
    is_inside_ = is_begin;
    decoded_.output_bytes += is_begin ? kSectionMarkBytes : kRecordHeaderBytes;
    if (!is_begin && target_.has_footer) {
      decoded_.output_bytes += kSectionMarkBytes;
    }
    return {};
  }

  Fault CheckPages(const MapEntry& entry) const noexcept {
    if (entry.kind > EntryKind::kDelta) {
      return {FaultCode::kMap, "entry kind must be <=",
              static_cast<std::uint64_t>(EntryKind::kDelta),
              static_cast<std::uint64_t>(entry.kind)};
    }
    if (!is_inside_) {
      return {FaultCode::kMap, "sections open before a page must be", 1, 0};
    }
    const std::uint8_t flags_max =
        kEntryNamesBlock | (IsKeepableKind(entry.kind) ? kEntryKeeps : 0);
    if (entry.flags > flags_max) {
      return {FaultCode::kMap, "entry flags must be <=", flags_max, entry.flags};
    }
    if (entry.block >= blocks_.count()) {
      return {FaultCode::kPageIndex, "block must be <", blocks_.count(), entry.block};
    }
    const std::uint64_t page_count = blocks_.at(entry.block).page_count;
    if (entry.first_page >= page_count) {
      return {FaultCode::kPageIndex, "page index must be <", page_count, entry.first_page};
    }
    if (entry.count == 0) {
      return {FaultCode::kMap, "pages of a run must be >=", 1, 0};
    }
    if (entry.count > page_count - entry.first_page) {
      return {FaultCode::kPageIndex, "pages of a run must be <=", page_count - entry.first_page,
              entry.count};
    }
    return CheckLength(entry);
  }

  Fault CheckLength(const MapEntry& entry) const noexcept {
    std::uint64_t min = 0;
    std::uint64_t max = 0;
    if (entry.kind == EntryKind::kXbzrle) {
      min = kXbzrleHeadBytes;
      max = min + blocks_.page_bytes();
    } else if (entry.kind == EntryKind::kCompress) {
      min = kCompressHeadBytes;
      max = min + CompressBound(blocks_.page_bytes());
    } else if (entry.kind == EntryKind::kDelta) {
      max = blocks_.page_bytes() - 1;
    }
    if (max > 0 && entry.count != 1) {
      return {FaultCode::kMap, "pages of a record or delta must be", 1, entry.count};
    }
    if (entry.length < min) {
      return {FaultCode::kMap, "bytes of the entry must be >=", min, entry.length};
    }
    if (entry.length > max) {
      return {FaultCode::kMap, "bytes of the entry must be <=", max, entry.length};
    }
    return {};
  }

  Fault TakePages(const MapEntry& entry) noexcept {
    if (const Fault fault = CheckPages(entry)) {
      return fault;
    }
    decoded_.pages += entry.count;
    std::uint64_t body_bytes = blocks_.page_bytes();
    if (entry.kind == EntryKind::kZero) {
      body_bytes = 1;
      decoded_.zero_pages += entry.count;
    } else {
      body_pages_ += entry.count;
    }
    if (IsForeignKind(entry.kind)) {
      body_bytes = entry.length;
    }
    literal_bytes_ += ContentBytesOf(entry, static_cast<std::size_t>(blocks_.page_bytes())) +
                      ReferencesOf(entry.kind, entry.flags) * kReferenceBytes;
    decoded_.fill_pages += entry.kind == EntryKind::kFill ? entry.count : 0;
    decoded_.same_pages += entry.kind == EntryKind::kSame ? entry.count : 0;
    decoded_.delta_pages += entry.kind == EntryKind::kDelta ? entry.count : 0;
    PlanRecords(entry, kRecordHeaderBytes + body_bytes);

    if (decoded_.zero_pages > kZeroPagesMax) {
      return {FaultCode::kMap, "zero pages must be <=", kZeroPagesMax, decoded_.zero_pages};
    }
    const std::uint64_t body_pages_max = kBodyBytesMax >> blocks_.page_bits();
    if (body_pages_ > body_pages_max) {
      return {FaultCode::kMap, "pages other than zero pages must be <=", body_pages_max,
              body_pages_};
    }
    return {};
  }

  /// record_bytes: of one record of the entry that does not name its block.
  void PlanRecords(const MapEntry& entry, std::uint64_t record_bytes) noexcept {
    const bool continues =
        (entry.flags & kEntryNamesBlock) == 0 && entry.block == previous_block_;
    const std::uint64_t name_bytes = continues ? 0 : 1 + blocks_.at(entry.block).name.size();
    const auto begin = static_cast<std::int64_t>(decoded_.output_bytes);
    if (decoded_.first_record < 0) {
      decoded_.first_record = begin;
      decoded_.first_continues = continues;
      decoded_.first_block = entry.block;
    }
    decoded_.output_bytes += name_bytes + record_bytes * entry.count;
    decoded_.last_record_end = static_cast<std::int64_t>(decoded_.output_bytes);
    decoded_.last_record = entry.count == 1 ? begin
                                            : decoded_.last_record_end -
                                                  static_cast<std::int64_t>(record_bytes);
    decoded_.last_block = entry.block;
    previous_block_ = entry.block;
  }

  const Target& target_;
  const BlockTable& blocks_;
  DecodedBatch& decoded_;
  bool is_inside_;
  std::int32_t previous_block_;
  std::uint64_t literal_bytes_ = 0;
  std::uint64_t body_pages_ = 0;
  std::uint64_t prefix_pages_ = 0;
};

}  // namespace

Fault CheckSlots(const Target& target, std::uint64_t first, std::uint64_t count) noexcept {
  const std::uint64_t slot_count = target.store == nullptr ? 0 : target.store->slot_count();
  if (first >= slot_count) {
    return {FaultCode::kReference, "slot must be <", slot_count, first};
  }
  if (count > slot_count - first) {
    return {FaultCode::kReference, "slots of a run must be <=", slot_count - first, count};
  }
  return {};
}

Fault InspectHead(const Target& target, std::span<const std::uint8_t> head,
                  std::size_t batch_bytes, DecodedBatch* decoded) noexcept {
  BatchHeader header;
  if (const Fault fault = CheckHeader(target, head, batch_bytes, &header)) {
    return fault;
  }
  if (const Fault fault = CheckSizes(header, batch_bytes)) {
    return fault;
  }
  *decoded = DecodedBatch{};
  decoded->number = header.number;
  decoded->base = header.base;
  decoded->opens_inside = (header.flags & kHeaderInside) != 0;
  if ((header.flags & kHeaderHasLastBlock) != 0) {
    decoded->entry_block = header.last_block;
  }
  MapWalk walk(target, decoded);
  if (const Fault fault = walk.Walk(head.data() + kBatchHeaderBytes, header.map_bytes)) {
    return fault;
  }
  return walk.CheckTotals(header);
}

}  // namespace pagelane::kernel
