#include "kernel/batch_apply.h"

#include <cstring>

#include "kernel/batch_contents.h"
#include "kernel/batch_digest.h"
#include "kernel/delta.h"
#include "kernel/limits.h"

/*
 * Flow of a batch from the wire to guest memory
 *
 *   1. open      inspected and decompressed                                         OpenBatch
 *   2. digest    what each page will be, where it lies now; compare the checksum
 *   3. place     every page in guest memory
 *   4. keep      in the store what the batch says
 */

namespace pagelane::kernel {

namespace {

/// Goes through the pages of a batch: first to sum them up, then to place them.
class PageWalk {
 public:
  PageWalk(const Target& target, const BatchContents& batch) noexcept
      : target_(target),
        page_bytes_(static_cast<std::size_t>(target.blocks->page_bytes())),
        batch_(batch) {}

  /// Sums up what every page will be.
  Fault Sum(std::uint64_t* checksum) noexcept {
    BatchDigest digest(batch_.head, batch_.map, batch_.references);
    const Fault fault = ForEachRun([this, &digest](const MapEntry& entry, std::uint32_t like,
                                                   const std::uint8_t* contents) noexcept {
      return SumRun(entry, like, contents, digest);
    });
    *checksum = digest.value();
    return fault;
  }

  /// Places every page. Nothing can fail any more.
  void Place(MemoryTarget& memory) noexcept {
    ForEachRun([this, &memory](const MapEntry& entry, std::uint32_t like,
                               const std::uint8_t* contents) noexcept -> Fault {
      for (std::uint32_t index = 0; index < entry.count; index++) {
        PlacePage(entry, index, like + index, contents, memory);
      }
      return {};
    });
  }

  /// Keeps what is to be kept: when all is placed, for what it replaces may be referred to.
  void Keep(const GuestMemory& memory) noexcept {
    ForEachRun([this, &memory](const MapEntry& entry, std::uint32_t,
                               const std::uint8_t*) noexcept -> Fault {
      for (std::uint32_t index = 0; slots_.keeps && index < entry.count; index++) {
        std::memcpy(target_.store->At(slots_.kept + index),
                    memory.At(entry.block, entry.first_page + index), page_bytes_);
      }
      return {};
    });
  }

 private:
  template <typename Take>
  Fault ForEachRun(Take take) noexcept {
    ReferenceReader references(target_, batch_.references);
    const std::uint8_t* contents = batch_.contents;
    for (std::size_t at = 0; at < batch_.map.size(); at += kMapEntryBytes) {
      const MapEntry entry = MapEntry::Load(batch_.map.data() + at);
      if (entry.kind == EntryKind::kPrefix) {
        continue;
      }
      if (!IsPageKind(entry.kind) || IsForeignKind(entry.kind)) {
        return {FaultCode::kMap, "entries that only QEMU reads must be", 0, 1};
      }
      if (const Fault fault = references.Read(entry, &slots_)) {
        return fault;
      }
      if (const Fault fault = take(entry, slots_.like, contents)) {
        return fault;
      }
      contents += ContentBytesOf(entry, page_bytes_);
    }
    return {};
  }

  Fault SumRun(const MapEntry& entry, std::uint32_t like, const std::uint8_t* contents,
               BatchDigest& digest) noexcept {
    if (entry.kind == EntryKind::kZero || entry.kind == EntryKind::kBlank) {
      return {};
    }
    std::uint8_t* const made = batch_.room->page;
    if (entry.kind == EntryKind::kFill) {
      FillPage(contents, made, page_bytes_);
    }
    for (std::uint32_t index = 0; index < entry.count; index++) {
      const std::uint8_t* page = made;
      if (entry.kind == EntryKind::kRaw) {
        page = contents + index * page_bytes_;
      } else if (entry.kind == EntryKind::kSame) {
        page = target_.store->At(like + index);
      } else if (entry.kind == EntryKind::kDelta) {
        std::memcpy(made, target_.store->At(like), page_bytes_);
        if (!ApplyDelta(contents, entry.length, made, page_bytes_)) {
          return {FaultCode::kLiterals, "changes of a page must fit it, in bytes", page_bytes_,
                  entry.length};
        }
      }
      digest.AddHash(BatchDigest::HashOf(page, page_bytes_));
    }
    return {};
  }

  void PlacePage(const MapEntry& entry, std::uint32_t index, std::uint32_t like,
                 const std::uint8_t* contents, MemoryTarget& memory) noexcept {
    const std::uint64_t number = entry.first_page + index;
    if (entry.kind == EntryKind::kZero || entry.kind == EntryKind::kBlank) {
      memory.Clear(entry.block, number);
      return;
    }
    std::uint8_t* const page = memory.Write(entry.block, number);
    switch (entry.kind) {
      case EntryKind::kRaw:
        std::memcpy(page, contents + index * page_bytes_, page_bytes_);
        break;
      case EntryKind::kFill:
        FillPage(contents, page, page_bytes_);
        break;
      default:
        std::memcpy(page, target_.store->At(like), page_bytes_);
        if (entry.kind == EntryKind::kDelta) {
          ApplyDelta(contents, entry.length, page, page_bytes_);
        }
        break;
    }
  }

  const Target& target_;
  const std::size_t page_bytes_;
  const BatchContents& batch_;
  ReferenceReader::Slots slots_;
};

}  // namespace

Fault ApplyBatch(const Target& target, MemoryTarget& memory, std::span<const std::uint8_t> batch,
                 Scratch& scratch, DecodedBatch* decoded) noexcept {
  BatchContents contents;
  if (const Fault fault = OpenBatch(target, batch, scratch, decoded, &contents)) {
    return fault;
  }
  PageWalk walk(target, contents);
  std::uint64_t checksum = 0;
  if (const Fault fault = walk.Sum(&checksum)) {
    return fault;
  }
  const BatchHeader& header = contents.header;
  if (checksum != header.checksum) {
    return {FaultCode::kChecksum, "checksum must be", header.checksum, checksum};
  }
  walk.Place(memory);
  walk.Keep(memory.memory());
  if (memory.memory().is_lost()) {
    return {FaultCode::kMemoryLost, "truncated files of guest memory must be", 0, 1};
  }
  return {};
}

}  // namespace pagelane::kernel
