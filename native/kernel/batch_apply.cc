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
 *   2. sum up    what each page will be, where it lies now; compare the checksum
 *   3. place     every page in guest memory
 *   4. keep      in the store what the batch says
 */

namespace pagelane::kernel {

namespace {

/// Goes through the pages of a batch: to make them and sum them up, to place them, to keep them.
class PageWalk {
 public:
  PageWalk(const Target& target, const BatchContents& batch) noexcept
      : target_(target),
        page_bytes_(static_cast<std::size_t>(target.blocks->page_bytes())),
        batch_(batch) {}

  /// Makes what is to be made of other pages, and sums up what every page will be.
  Fault Sum(std::uint64_t* checksum) noexcept {
    BatchDigest digest(batch_.head, batch_.map, batch_.references);
    const Fault fault = ForEachRun([this, &digest](const MapEntry& entry, const Run& run) noexcept {
      return SumRun(entry, run, digest);
    });
    *checksum = digest.value();
    return fault;
  }

  /// Places every page. Nothing can fail any more.
  void Place(MemoryTarget& memory) noexcept {
    ForEachRun([this, &memory](const MapEntry& entry, const Run& run) noexcept -> Fault {
      for (std::uint32_t index = 0; index < entry.count; index++) {
        PlacePage(entry, run, index, memory);
      }
      return {};
    });
  }

  /// Keeps what is to be kept: when all is placed, for what it replaces may be referred to.
  void Keep() noexcept {
    ForEachRun([this](const MapEntry& entry, const Run& run) noexcept -> Fault {
      if (run.slots.keeps) {
        std::memcpy(target_.store->At(run.slots.kept), run.bytes(), entry.count * page_bytes_);
      }
      return {};
    });
  }

 private:
  /// Where an entry's pages are.
  struct Run {
    ReferenceReader::Slots slots;
    /// In the literals.
    const std::uint8_t* contents;
    /// Of a delta, the page that it makes; null for others.
    std::uint8_t* made;

    const std::uint8_t* bytes() const noexcept { return made == nullptr ? contents : made; }
  };

  template <typename Take>
  Fault ForEachRun(Take take) noexcept {
    ReferenceReader references(target_, batch_.references);
    const std::uint8_t* contents = batch_.contents;
    std::uint8_t* made = batch_.room->made;
    for (std::size_t at = 0; at < batch_.map.size(); at += kMapEntryBytes) {
      const MapEntry entry = MapEntry::Load(batch_.map.data() + at);
      if (entry.kind == EntryKind::kPrefix) {
        continue;
      }
      if (!IsPageKind(entry.kind) || IsForeignKind(entry.kind)) {
        return {FaultCode::kMap, "entries that only QEMU reads must be", 0, 1};
      }
      Run run;
      if (const Fault fault = references.Read(entry, &run.slots)) {
        return fault;
      }
      run.contents = contents;
      run.made = entry.kind == EntryKind::kDelta ? made : nullptr;
      if (const Fault fault = take(entry, run)) {
        return fault;
      }
      contents += ContentBytesOf(entry, page_bytes_);
      made += run.made == nullptr ? 0 : page_bytes_;
    }
    return {};
  }

  Fault SumRun(const MapEntry& entry, const Run& run, BatchDigest& digest) noexcept {
    if (entry.kind == EntryKind::kZero || entry.kind == EntryKind::kBlank) {
      return {};
    }
    const std::uint8_t* page = run.bytes();
    std::size_t step = page_bytes_;
    if (entry.kind == EntryKind::kFill) {
      FillPage(run.contents, batch_.room->filled, page_bytes_);
      page = batch_.room->filled;
      step = 0;
    } else if (entry.kind == EntryKind::kSame) {
      page = target_.store->At(run.slots.like);
    } else if (entry.kind == EntryKind::kDelta) {
      std::memcpy(run.made, target_.store->At(run.slots.like), page_bytes_);
      if (!ApplyDelta(run.contents, entry.length, run.made, page_bytes_)) {
        return {FaultCode::kLiterals, "changes of a page must fit it, in bytes", page_bytes_,
                entry.length};
      }
    }
    for (std::uint32_t index = 0; index < entry.count; index++) {
      digest.AddHash(BatchDigest::HashOf(page, page_bytes_));
      page += step;
    }
    return {};
  }

  void PlacePage(const MapEntry& entry, const Run& run, std::uint32_t index,
                 MemoryTarget& memory) noexcept {
    const std::uint64_t number = entry.first_page + index;
    if (entry.kind == EntryKind::kZero || entry.kind == EntryKind::kBlank) {
      memory.Clear(entry.block, number);
      return;
    }
    std::uint8_t* const page = memory.Write(entry.block, number);
    if (entry.kind == EntryKind::kFill) {
      FillPage(run.contents, page, page_bytes_);
    } else if (entry.kind == EntryKind::kSame) {
      std::memcpy(page, target_.store->At(run.slots.like + index), page_bytes_);
    } else {
      std::memcpy(page, run.bytes() + index * page_bytes_, page_bytes_);
    }
  }

  const Target& target_;
  const std::size_t page_bytes_;
  const BatchContents& batch_;
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
  walk.Keep();
  if (memory.memory().is_lost()) {
    return {FaultCode::kMemoryLost, "truncated files of guest memory must be", 0, 1};
  }
  return {};
}

}  // namespace pagelane::kernel
