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

/// Adds a page to the batch. False if it is full.
bool AddPage(BatchBuilder& builder, std::uint16_t block, std::uint64_t page,
             const std::uint8_t* bytes, std::size_t page_bytes, ZeroTest is_zero) noexcept {
  if (IsZeroPage(bytes, page_bytes, is_zero)) {
    if (!builder.FitsZero()) {
      return false;
    }
    builder.AddZero(block, page, false);
    return true;
  }
  if (!builder.FitsBody(page_bytes)) {
    return false;
  }
  if (IsFillPage(bytes, page_bytes)) {
    builder.AddFill(block, page, false, LoadLe<std::uint64_t>(bytes));
  } else {
    builder.AddRaw(block, page, false, bytes);
  }
  return true;
}

}  // namespace

Fault GatherPages(const GuestMemory& memory, const PageRange& range,
                  std::span<std::uint8_t> slot, Scratch& scratch, Gathered* gathered) noexcept {
  BatchBuilder* builder = scratch.Building(memory.page_bits());
  if (builder == nullptr) {
    return {FaultCode::kNoMemory, "bytes needed:", kMapBytesMax, 0};
  }
  const std::size_t page_bytes = std::size_t{1} << memory.page_bits();
  const ZeroTest is_zero = FastestZeroPage().test;
  builder->Begin(slot.data(), slot.size());
  // Pages lie in a section of QEMU's wherever it is QEMU that loads them.
  builder->SetEntry(true, -1);
  std::uint64_t page = NextPage(range, range.from);
  while (page < range.end &&
         AddPage(*builder, range.block, page, memory.At(range.block, page), page_bytes,
                 is_zero)) {
    page = NextPage(range, page + 1);
  }
  gathered->next = page;
  gathered->sealed = builder->Seal();
  return memory.is_lost() ? kLost : Fault{};
}

Fault HashPages(const GuestMemory& memory, const PageRange& range, const std::uint8_t* secret,
                std::uint8_t* hashes) noexcept {
  const std::size_t page_bytes = std::size_t{1} << memory.page_bits();
  std::memset(hashes, 0, static_cast<std::size_t>(range.end - range.from) * kPageHashBytes);
  for (std::uint64_t page = NextPage(range, range.from); page < range.end;
       page = NextPage(range, page + 1)) {
    HashWithSecret(memory.At(range.block, page), page_bytes, secret,
                   hashes + (page - range.from) * kPageHashBytes);
  }
  return memory.is_lost() ? kLost : Fault{};
}

}  // namespace pagelane::kernel
