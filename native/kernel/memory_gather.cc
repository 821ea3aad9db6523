#include "kernel/memory_gather.h"

#include <bit>
#include <cstring>

#include "kernel/bytes.h"
#include "kernel/fill_page.h"
#include "kernel/hash.h"
#include "kernel/zero_page.h"

namespace pagelane::kernel {

namespace {

constexpr Fault kLost{FaultCode::kMemoryLost, "truncated files of guest memory must be", 0, 1};

/// The first page from `page` on whose bit is set, `end` if there is none.
std::uint64_t NextPage(const PageRange& range, std::uint64_t page) noexcept {
  while (page < range.end) {
    const std::uint64_t rest = range.words[page / 64] >> page % 64;
    if (rest != 0) {
      page += static_cast<std::uint64_t>(std::countr_zero(rest));
      return page < range.end ? page : range.end;
    }
    page = (page / 64 + 1) * 64;
  }
  return range.end;
}

/// Puts pages of a block into a batch.
class Gatherer {
 public:
  Gatherer(BatchBuilder& builder, const PageRange& range, std::size_t page_bytes,
           std::uint8_t* made) noexcept
      : builder_(builder),
        range_(range),
        page_bytes_(page_bytes),
        is_zero_(FastestZeroPage().test),
        made_(made) {}

  /// False if the batch is full.
  bool Add(std::uint64_t page, const std::uint8_t* bytes) noexcept {
    if (IsZeroPage(bytes, page_bytes_, is_zero_)) {
      if (!builder_.FitsZero()) {
        return false;
      }
      builder_.AddZero(range_.block, page, false);
      NoteWord(page, 0);
      return true;
    }
    if (!builder_.FitsBody(page_bytes_)) {
      return false;
    }
    if (IsFillPage(bytes, page_bytes_)) {
      const auto word = LoadLe<std::uint64_t>(bytes);
      builder_.AddFill(range_.block, page, false, word);
      NoteWord(page, word);
    } else {
      Note(page, builder_.AddRaw(range_.block, page, false, bytes));
    }
    return true;
  }

 private:
  /// What counts is what is sent, whatever memory holds by now.
  void Note(std::uint64_t page, const std::uint8_t* sent) noexcept {
    if (range_.digests != nullptr) {
      range_.digests->Note(range_.block, page, sent);
    }
  }

  void NoteWord(std::uint64_t page, std::uint64_t word) noexcept {
    if (range_.digests != nullptr) {
      std::uint8_t bytes[kFillBytes];
      StoreLe(bytes, word);
      FillPage(bytes, made_, page_bytes_);
      Note(page, made_);
    }
  }

  BatchBuilder& builder_;
  const PageRange& range_;
  const std::size_t page_bytes_;
  const ZeroTest is_zero_;
  std::uint8_t* const made_;
};

}  // namespace

Fault GatherPages(const GuestMemory& memory, const PageRange& range,
                  std::span<std::uint8_t> slot, Scratch& scratch, Gathered* gathered) noexcept {
  BatchBuilder* builder = scratch.Building(memory.page_bits());
  EncodeRoom* room = scratch.Encoding();
  if (builder == nullptr || room == nullptr) {
    return {FaultCode::kNoMemory, "bytes needed:", kMapBytesMax, 0};
  }
  builder->Begin(slot.data(), slot.size());
  // Pages lie in a section of QEMU's wherever it is QEMU that loads them.
  builder->SetEntry(true, -1);
  Gatherer gatherer(*builder, range, memory.page_bytes(), room->delta);
  std::uint64_t page = NextPage(range, range.from);
  while (page < range.end && gatherer.Add(page, memory.At(range.block, page))) {
    page = NextPage(range, page + 1);
  }
  gathered->next = page;
  gathered->sealed = builder->Seal();
  return memory.is_lost() ? kLost : Fault{};
}

Fault HashPages(const GuestMemory& memory, const PageRange& range, const std::uint8_t* secret,
                Scratch& scratch, std::uint8_t* hashes) noexcept {
  const std::size_t page_bytes = memory.page_bytes();
  EncodeRoom* room = scratch.Encoding();
  if (room == nullptr) {
    return {FaultCode::kNoMemory, "bytes needed:", sizeof(EncodeRoom), 0};
  }
  std::memset(hashes, 0, static_cast<std::size_t>(range.end - range.from) * kPageHashBytes);
  for (std::uint64_t page = NextPage(range, range.from); page < range.end;
       page = NextPage(range, page + 1)) {
    const std::uint8_t* bytes = memory.At(range.block, page);
    if (range.digests != nullptr) {
      // What is noted must be what is hashed, whoever writes meanwhile.
      bytes = static_cast<const std::uint8_t*>(std::memcpy(room->delta, bytes, page_bytes));
      range.digests->Note(range.block, page, bytes);
    }
    HashWithSecret(bytes, page_bytes, secret, hashes + (page - range.from) * kPageHashBytes);
  }
  return memory.is_lost() ? kLost : Fault{};
}

}  // namespace pagelane::kernel
