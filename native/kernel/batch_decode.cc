#include <cassert>
#include <cstring>

#include "kernel/batch.h"
#include "kernel/batch_contents.h"
#include "kernel/batch_digest.h"
#include "kernel/delta.h"
#include "kernel/limits.h"
#include "kernel/qemu_format.h"

/*
 * Flow of a batch from the wire to QEMU
 *
 *   1. open         inspected and decompressed                                       OpenBatch
 *   2. write        the records, and hash each page where it was written
 *   3. compare      the checksum
 *   4. keep         in the store what the batch says, and note the hashes if memory is verified
 */

namespace pagelane::kernel {

namespace {

/// Writes the records of a map that has been inspected.
class RecordWriter {
 public:
  RecordWriter(const Target& target, std::int32_t entry_block, const BatchContents& batch,
               std::uint8_t* output) noexcept
      : target_(target),
        blocks_(*target.blocks),
        page_bytes_(static_cast<std::size_t>(target.blocks->page_bytes())),
        previous_block_(entry_block),
        references_(target, batch.references),
        contents_(batch.contents),
        digest_(batch.head, batch.map, batch.references),
        kept_(batch.room->kept),
        next_hash_(batch.room->hashes),
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
    ReferenceReader::Slots slots;
    if (const Fault fault = references_.Read(entry, &slots)) {
      return fault;
    }
    if (slots.keeps) {
      kept_[kept_count_++] = {nullptr, slots.kept, entry.count};
    }
    for (std::uint32_t index = 0; index < entry.count; index++) {
      WriteHeader(entry, index);
      if (index == 0 && slots.keeps) {
        kept_[kept_count_ - 1].first = at_;
      }
      if (entry.kind == EntryKind::kZero) {
        *at_++ = 0;
        continue;
      }
      if (!WritePage(entry, slots.like + index)) {
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
  ReferenceReader references_;
  const std::uint8_t* contents_;
  BatchDigest digest_;
  const std::span<KeptRun> kept_;
  std::size_t kept_count_ = 0;
  std::uint64_t* next_hash_;
  std::uint8_t* at_;
};

}  // namespace

Fault DecodeBatch(const Target& target, std::span<const std::uint8_t> batch,
                  std::span<std::uint8_t> output, Scratch& scratch,
                  DecodedBatch* decoded) noexcept {
  BatchContents contents;
  if (const Fault fault = OpenBatch(target, batch, scratch, decoded, &contents)) {
    return fault;
  }
  if (decoded->output_bytes > output.size()) {
    return {FaultCode::kOutput, "output bytes must be >=", decoded->output_bytes, output.size()};
  }
  RecordWriter writer(target, decoded->entry_block, contents, output.data());
  if (const Fault fault = writer.Write(contents.map)) {
    return fault;
  }
  assert(writer.end() == output.data() + decoded->output_bytes);
  const BatchHeader& header = contents.header;
  if (writer.checksum() != header.checksum) {
    return {FaultCode::kChecksum, "checksum must be", header.checksum, writer.checksum()};
  }
  writer.Keep();
  if (target.hashes != nullptr) {
    target.hashes->Note(contents.map, header.number, contents.room->hashes);
  }
  return {};
}

}  // namespace pagelane::kernel
