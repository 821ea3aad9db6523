#include <algorithm>
#include <cassert>
#include <cstring>

#include "kernel/batch.h"
#include "kernel/limits.h"
#include "kernel/qemu_format.h"

/*
 * Flow of a batch from the wire
 *
 *   1. copy         header and map, so that what is checked is what is used
 *   2. inspect      every field against its limits; the size of the output follows
 *   3. decompress   the literals, to exactly the size that the map takes
 *   4. compare      the checksum
 *   5. write        the records
 */

namespace pagelane::kernel {

namespace {

/// Writes the records of a map that has been inspected.
class RecordWriter {
 public:
  RecordWriter(const Target& target, std::int32_t entry_block, const std::uint8_t* literals,
               std::uint8_t* output) noexcept
      : target_(target),
        blocks_(*target.blocks),
        page_bytes_(static_cast<std::size_t>(target.blocks->page_bytes())),
        previous_block_(entry_block),
        literals_(literals),
        at_(output) {}

  Fault Write(const std::uint8_t* map, std::size_t map_bytes) noexcept {
    for (std::size_t at = 0; at < map_bytes; at += kMapEntryBytes) {
      const MapEntry entry = MapEntry::Load(map + at);
      switch (entry.kind) {
        case EntryKind::kSectionBegin:
          WriteSectionMark(kSectionPart);
          break;
        case EntryKind::kSectionEnd:
          WriteSectionEnd();
          break;
        case EntryKind::kXbzrle:
        case EntryKind::kCompress:
          if (const Fault fault = CheckForeign(entry)) {
            return fault;
          }
          WriteHeader(entry, 0);
          WriteLiterals(entry.length);
          break;
        case EntryKind::kZero:
        case EntryKind::kRaw:
        case EntryKind::kBlank:
          WriteRun(entry);
          break;
      }
    }
    return {};
  }

  const std::uint8_t* end() const noexcept { return at_; }

 private:
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

  void WriteLiterals(std::size_t byte_count) noexcept {
    std::memcpy(at_, literals_, byte_count);
    at_ += byte_count;
    literals_ += byte_count;
  }

  void WriteRun(const MapEntry& entry) noexcept {
    for (std::uint32_t index = 0; index < entry.count; index++) {
      WriteHeader(entry, index);
      if (entry.kind == EntryKind::kRaw) {
        WriteLiterals(page_bytes_);
      } else {
        const std::size_t zero_bytes = entry.kind == EntryKind::kZero ? 1 : page_bytes_;
        std::memset(at_, 0, zero_bytes);
        at_ += zero_bytes;
      }
    }
  }

  /// A foreign record states its length itself; QEMU would read past it if that were another.
  Fault CheckForeign(const MapEntry& entry) const noexcept {
    if (entry.kind == EntryKind::kXbzrle && literals_[0] != 1) {
      return {FaultCode::kLiterals, "encoding of an XBZRLE record must be", 1, literals_[0]};
    }
    const std::uint64_t stated = entry.kind == EntryKind::kXbzrle
                                     ? kXbzrleHeadBytes + std::uint64_t{LoadBe16(literals_ + 1)}
                                     : kCompressHeadBytes + std::uint64_t{LoadBe32(literals_)};
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
  const std::uint8_t* literals_;
  std::uint8_t* at_;
};

/// Points `literals` at the decoded literals: in the batch itself, or in the thread's scratch.
Fault DecodeLiterals(const BatchHeader& header, std::span<const std::uint8_t> wire,
                     Scratch& scratch, const std::uint8_t** literals) noexcept {
  const auto codec = static_cast<Codec>(header.codec);
  if (codec == Codec::kNone) {
    *literals = wire.data();
    return {};
  }
  std::uint8_t* decoded = scratch.Literals();
  if (decoded == nullptr) {
    return {FaultCode::kNoMemory, "bytes needed:", header.literal_bytes, 0};
  }
  *literals = decoded;
  switch (scratch.compressor().Decompress(codec, wire.data(), wire.size(), decoded,
                                          header.literal_bytes)) {
    case Decompressed::kExact:
      return {};
    case Decompressed::kNoMemory:
      return {FaultCode::kNoMemory, "bytes needed:", header.literal_bytes, 0};
    case Decompressed::kMalformed:
      break;
  }
  return {FaultCode::kLiterals, "literals must decompress to bytes", header.literal_bytes, 0};
}

}  // namespace

Fault DecodeBatch(const Target& target, std::span<const std::uint8_t> batch,
                  std::span<std::uint8_t> output, Scratch& scratch,
                  DecodedBatch* decoded) noexcept {
  std::uint8_t* head = scratch.Head();
  if (head == nullptr) {
    return {FaultCode::kNoMemory, "bytes needed:", kBatchHeaderBytes + kMapBytesMax, 0};
  }
  const std::size_t copied = std::min(batch.size(), kBatchHeaderBytes + kMapBytesMax);
  if (copied > 0) {
    std::memcpy(head, batch.data(), copied);
  }
  if (const Fault fault = InspectHead(target, {head, copied}, batch.size(), decoded)) {
    return fault;
  }
  if (decoded->output_bytes > output.size()) {
    return {FaultCode::kOutput, "output bytes must be >=", decoded->output_bytes, output.size()};
  }
  const BatchHeader header = BatchHeader::Load(head);
  const std::span<const std::uint8_t> map(head + kBatchHeaderBytes, header.map_bytes);
  const std::uint8_t* literals = nullptr;
  if (const Fault fault = DecodeLiterals(
          header, batch.subspan(kBatchHeaderBytes + map.size()), scratch, &literals)) {
    return fault;
  }
  const std::uint64_t checksum = BatchChecksum(head, map, {literals, header.literal_bytes});
  if (checksum != header.checksum) {
    return {FaultCode::kChecksum, "checksum must be", header.checksum, checksum};
  }
  RecordWriter writer(target, decoded->entry_block, literals, output.data());
  if (const Fault fault = writer.Write(map.data(), map.size())) {
    return fault;
  }
  assert(writer.end() == output.data() + decoded->output_bytes);
  return {};
}

}  // namespace pagelane::kernel
