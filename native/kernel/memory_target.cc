#include "kernel/memory_target.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace pagelane::kernel {

static_assert(sizeof(std::atomic<std::uint64_t>) == sizeof(std::uint64_t));

void MemoryTarget::FreeWords::operator()(std::atomic<std::uint64_t>* words) const noexcept {
  std::free(static_cast<void*>(words));
}

MemoryTarget::MemoryTarget(std::shared_ptr<const GuestMemory> memory) noexcept
    : memory_(std::move(memory)) {
  for (std::size_t block = 0; block < memory_->block_count(); block++) {
    // Zeroed pages of the system's: a large guest that is mostly empty takes little.
    const std::size_t count = static_cast<std::size_t>(memory_->PageCount(block) / 64 + 1);
    held_.emplace_back(static_cast<std::atomic<std::uint64_t>*>(
        std::calloc(count, sizeof(std::atomic<std::uint64_t>))));
    is_usable_ = is_usable_ && held_.back() != nullptr;
  }
}

void MemoryTarget::AddHeld(std::size_t block, std::span<const std::uint64_t> words) noexcept {
  const std::uint64_t pages = memory_->PageCount(block);
  const std::size_t count = std::min<std::uint64_t>(words.size(), (pages + 63) / 64);
  for (std::size_t index = 0; index < count; index++) {
    held_[block].get()[index].fetch_or(words[index], std::memory_order_relaxed);
  }
}

void MemoryTarget::Clear(std::size_t block, std::uint64_t page) noexcept {
  if ((Word(block, page).load(std::memory_order_relaxed) & Bit(page)) != 0) {
    std::memset(memory_->At(block, page), 0, std::size_t{1} << memory_->page_bits());
  }
}

}  // namespace pagelane::kernel
