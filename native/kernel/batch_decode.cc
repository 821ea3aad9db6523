#include <algorithm>
#include <cassert>
#include <cstring>

#include "kernel/batch.h"
#include "kernel/batch_digest.h"
#include "kernel/delta.h"
#include "kernel/limits.h"
#include "kernel/qemu_format.h"

/*
 * Flow of a batch from the wire
 *
 *   1. copy         header and map, so that what is checked is what is used
 *   2. inspect      every field against its limits; the size of the output follows
 *   3. decompress   the literals, to exactly the size that the map takes
 *   4. write        the records, and hash each page where it was written
 *   5. compare      the checksum
 *   6. keep         in the store what the batch says, and note the hashes if memory is verified
 */

namespace pagelane::kernel {

namespace {

/// The decoded literals of a batch.
struct Literals {
  std::span<const std::uint8_t> references;
  const std::uint8_t* contents;
};

/// Writes the records of a map that has been inspected.
class RecordWriter {
 public:
  RecordWriter(const Target& target, std::int32_t entry_block, const Literals& literals,
               BatchDigest digest, DecodeRoom& room, std::uint8_t* output) noexcept
      : target_(target),
        blocks_(*target.blocks),
        page_bytes_(static_cast<std::size_t>(target.blocks->page_bytes())),
        previous_block_(entry_block),
        next_reference_(literals.references.data()),
        contents_(literals.contents),
        digest_(digest),
        kept_(room.kept),
        next_hash_(room.hashes),
        at_(output) {}

  Fault Write(std::span<const std::uint8_t> map) noexcept {
    for (std::size_t at = 0; at < map.size(); at += kMapEntryBytes) {
      if (const Fault fault = WriteEntry(MapEntry::Load(map.data() + at))) {
        return fault;
      }
    }
    return {};
  }

  std::uint64_t checksum() const noexcept { return digest_.value(); }

  /// Takes what is to be kept into the store.
  void Keep() noexcept {
    for (const KeptRun& run : kept_.first(kept_count_)) {
      const std::uint8_t* page = run.first;
      for (std::uint32_t index = 0; index < run.count; index++) {
        std::memcpy(target_.store->At(run.slot + index), page, page_bytes_);
        page += page_bytes_ + kRecordHeaderBytes;
      }
    }
  }

  const std::uint8_t* end() const noexcept { return at_; }

 private:
  Fault WriteEntry(const MapEntry& entry) noexcept {
    switch (entry.kind) {
      case EntryKind::kSectionBegin:
        WriteSectionMark(kSectionPart);
        return {};
      case EntryKind::kSectionEnd:
        WriteSectionEnd();
        return {};
      case EntryKind::kPrefix:
        return {};
      case EntryKind::kXbzrle:
      case EntryKind::kCompress:
        return WriteForeign(entry);
      case EntryKind::kZero:
      case EntryKind::kRaw:
      case EntryKind::kBlank:
      case EntryKind::kFill:
      case EntryKind::kSame:
      case EntryKind::kDelta:
        break;
    }
    return WriteRun(entry);
  }

  void WriteSectionMark(std::uint8_t type) noexcept {
    at_[0] = type;
    StoreBe32(at_ + 1, target_.section_id);
    at_ += kSectionMarkBytes;
  }

  void WriteSectionEnd() noexcept {
    StoreBe64(at_, kRamFlagEos);
    at_ += kRecordHeaderBytes;
    if (target_.has_footer) {
      WriteSectionMark(kSectionFooter);
    }
  }

  /// Header and block id of the entry's record number `index`.
  void WriteHeader(const MapEntry& entry, std::uint32_t index) noexcept {
    const bool names_block =
        index == 0 &&
        ((entry.flags & kEntryNamesBlock) != 0 || entry.block != previous_block_);
    std::uint64_t flags = FlagOf(entry.kind);
    if (!names_block) {
      flags |= kRamFlagContinue;
    }
    const std::uint64_t page = entry.first_page + index;
    StoreBe64(at_, page << blocks_.page_bits() | flags);
    at_ += kRecordHeaderBytes;
    if (names_block) {
      const std::string& name = blocks_.at(entry.block).name;
      *at_++ = static_cast<std::uint8_t>(name.size());
      std::memcpy(at_, name.data(), name.size());
      at_ += name.size();
      previous_block_ = entry.block;
    }
  }

  Fault WriteForeign(const MapEntry& entry) noexcept {
    if (const Fault fault = CheckForeign(entry)) {
      return fault;
    }
    WriteHeader(entry, 0);
    std::memcpy(at_, contents_, entry.length);
    digest_.AddHash(BatchDigest::HashOf(at_, entry.length));
    at_ += entry.length;
    contents_ += entry.length;
    return {};
  }

  Fault WriteRun(const MapEntry& entry) noexcept {
    std::uint32_t like = 0;
    if (const Fault fault = ReadReferences(entry, &like)) {
      return fault;
    }
    for (std::uint32_t index = 0; index < entry.count; index++) {
      WriteHeader(entry, index);
      if (index == 0 && (entry.flags & kEntryKeeps) != 0) {
        kept_[kept_count_ - 1].first = at_;
      }
      if (entry.kind == EntryKind::kZero) {
        *at_++ = 0;
        continue;
      }
      if (!WritePage(entry, like + index)) {
        return {FaultCode::kLiterals, "changes of a page must fit it, in bytes",
                page_bytes_, entry.length};
      }
      if (entry.kind != EntryKind::kBlank) {
        *next_hash_ = BatchDigest::HashOf(at_, page_bytes_);
        digest_.AddHash(*next_hash_++);
      }
      at_ += page_bytes_;
    }
    contents_ += entry.kind == EntryKind::kRaw ? 0 : ContentBytesOf(entry, page_bytes_);
    return {};
  }

  /// Reads where the entry's pages are in the store, and where they are to be kept.
  Fault ReadReferences(const MapEntry& entry, std::uint32_t* like) noexcept {
    const std::size_t count = ReferencesOf(entry.kind, entry.flags);
    const bool keeps = (entry.flags & kEntryKeeps) != 0;
    for (std::size_t i = 0; i < count; i++) {
      const auto slot = LoadLe<std::uint32_t>(next_reference_);
      next_reference_ += kReferenceBytes;
      if (const Fault fault = CheckSlots(target_, slot, entry.count)) {
        return fault;
      }
      if (keeps && i + 1 == count) {
        kept_[kept_count_++] = {nullptr, slot, entry.count};
      } else {
        *like = slot;
      }
    }
    return {};
  }

  /// Writes the contents of a page at `at_`. False if its delta is malformed.
  bool WritePage(const MapEntry& entry, std::uint32_t like) noexcept {
    switch (entry.kind) {
      case EntryKind::kRaw:
        std::memcpy(at_, contents_, page_bytes_);
        contents_ += page_bytes_;
        return true;
      case EntryKind::kFill:
        FillPage(contents_, at_, page_bytes_);
        return true;
      case EntryKind::kSame:
        std::memcpy(at_, target_.store->At(like), page_bytes_);
        return true;
      case EntryKind::kDelta:
        std::memcpy(at_, target_.store->At(like), page_bytes_);
        return ApplyDelta(contents_, entry.length, at_, page_bytes_);
      default:
        std::memset(at_, 0, page_bytes_);
        return true;
    }
  }

  /// A foreign record states its length itself; QEMU would read past it if that were another.
  Fault CheckForeign(const MapEntry& entry) const noexcept {
    if (entry.kind == EntryKind::kXbzrle && contents_[0] != 1) {
      return {FaultCode::kLiterals, "encoding of an XBZRLE record must be", 1, contents_[0]};
    }
    const std::uint64_t stated = entry.kind == EntryKind::kXbzrle
                                     ? kXbzrleHeadBytes + std::uint64_t{LoadBe16(contents_ + 1)}
                                     : kCompressHeadBytes + std::uint64_t{LoadBe32(contents_)};
    if (stated != entry.length) {
      return {FaultCode::kLiterals, "record bytes must be those of the map,", entry.length,
              stated};
    }
    return {};
  }

  static std::uint64_t FlagOf(EntryKind kind) noexcept {
    switch (kind) {
      case EntryKind::kZero:
        return kRamFlagZero;
      case EntryKind::kXbzrle:
        return kRamFlagXbzrle;
      case EntryKind::kCompress:
        return kRamFlagCompress;
      default:
        return kRamFlagPage;
    }
  }

  const Target& target_;
  const BlockTable& blocks_;
  const std::size_t page_bytes_;
  std::int32_t previous_block_;
  const std::uint8_t* next_reference_;
  const std::uint8_t* contents_;
  BatchDigest digest_;
  const std::span<KeptRun> kept_;
  std::size_t kept_count_ = 0;
  std::uint64_t* next_hash_;
  std::uint8_t* at_;
};

/// Puts the pages of the store that a map names as prefix one after another.
std::span<const std::uint8_t> GatherPrefix(const Target& target,
                                           std::span<const std::uint8_t> map,
                                           std::uint8_t* prefix) noexcept {
  std::size_t bytes = 0;
  for (std::size_t at = 0; at < map.size(); at += kMapEntryBytes) {
    const MapEntry entry = MapEntry::Load(map.data() + at);
    if (entry.kind == EntryKind::kPrefix) {
      const std::size_t run_bytes = entry.count * target.store->page_bytes();
      std::memcpy(prefix + bytes,
                  target.store->At(static_cast<std::uint32_t>(entry.first_page)), run_bytes);
      bytes += run_bytes;
    }
  }
  return {prefix, bytes};
}

/// Points `literals` at the decoded literals: in the batch itself, or in the thread's scratch.
Fault DecodeLiterals(const Target& target, const BatchHeader& header,
                     std::span<const std::uint8_t> map, std::span<const std::uint8_t> wire,
                     Scratch& scratch, const std::uint8_t** literals) noexcept {
  const auto codec = static_cast<Codec>(header.codec);
  if (codec == Codec::kNone) {
    *literals = wire.data();
    return {};
  }
  std::uint8_t* decoded = scratch.Decoding()->literals;
  std::span<const std::uint8_t> prefix;
  if (codec == Codec::kZstd && target.store != nullptr) {
    std::uint8_t* room = scratch.Prefix();
    if (room == nullptr) {
      return {FaultCode::kNoMemory, "bytes needed:", kPrefixBytesMax, 0};
    }
    prefix = GatherPrefix(target, map, room);
  }
  *literals = decoded;
  switch (scratch.compressor().Decompress(codec, wire, prefix,
                                          {decoded, header.literal_bytes})) {
    case Decompressed::kExact:
      return {};
    case Decompressed::kNoMemory:
      return {FaultCode::kNoMemory, "bytes needed:", header.literal_bytes, 0};
    case Decompressed::kMalformed:
      break;
  }
  return {FaultCode::kLiterals, "literals must decompress to bytes", header.literal_bytes, 0};
}

/// Bytes of all references of a map that has been inspected.
std::size_t ReferenceBytes(std::span<const std::uint8_t> map) noexcept {
  std::size_t count = 0;
  for (std::size_t at = 0; at < map.size(); at += kMapEntryBytes) {
    const MapEntry entry = MapEntry::Load(map.data() + at);
    count += ReferencesOf(entry.kind, entry.flags);
  }
  return count * kReferenceBytes;
}

}  // namespace

Fault DecodeBatch(const Target& target, std::span<const std::uint8_t> batch,
                  std::span<std::uint8_t> output, Scratch& scratch,
                  DecodedBatch* decoded) noexcept {
  DecodeRoom* room = scratch.Decoding();
  if (room == nullptr) {
    return {FaultCode::kNoMemory, "bytes needed:", sizeof(DecodeRoom), 0};
  }
  const std::size_t copied = std::min(batch.size(), sizeof room->head);
  if (copied > 0) {
    std::memcpy(room->head, batch.data(), copied);
  }
  if (const Fault fault = InspectHead(target, {room->head, copied}, batch.size(), decoded)) {
    return fault;
  }
  if (decoded->output_bytes > output.size()) {
    return {FaultCode::kOutput, "output bytes must be >=", decoded->output_bytes, output.size()};
  }
  const BatchHeader header = BatchHeader::Load(room->head);
  const std::span<const std::uint8_t> map(room->head + kBatchHeaderBytes, header.map_bytes);
  const std::uint8_t* decoded_literals = nullptr;
  if (const Fault fault =
          DecodeLiterals(target, header, map, batch.subspan(kBatchHeaderBytes + map.size()),
                         scratch, &decoded_literals)) {
    return fault;
  }
  const std::size_t reference_bytes = ReferenceBytes(map);
  const Literals literals{{decoded_literals, reference_bytes},
                          decoded_literals + reference_bytes};
  RecordWriter writer(target, decoded->entry_block, literals,
                      BatchDigest(room->head, map, literals.references), *room,
                      output.data());
  if (const Fault fault = writer.Write(map)) {
    return fault;
  }
  assert(writer.end() == output.data() + decoded->output_bytes);
  if (writer.checksum() != header.checksum) {
    return {FaultCode::kChecksum, "checksum must be", header.checksum, writer.checksum()};
  }
  writer.Keep();
  if (target.hashes != nullptr) {
    target.hashes->Note(map, header.number, room->hashes);
  }
  return {};
}

}  // namespace pagelane::kernel
