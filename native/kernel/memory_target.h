#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "kernel/guest_memory.h"

namespace pagelane::kernel {

/// Guest memory that batches are applied to, and which of its pages may hold anything: a page of
/// zeros is not written where there are zeros already, so memory that was never used stays so.
///
/// Threads may use it at once as long as they use different pages.
class MemoryTarget {
 public:
  /// All blocks of `memory` are writable. Nothing is held yet.
  explicit MemoryTarget(std::shared_ptr<const GuestMemory> memory) noexcept;

  /// True unless there was no memory for the bitmaps.
  bool is_usable() const noexcept { return is_usable_; }
  const GuestMemory& memory() const noexcept { return *memory_; }

  /// Says that the pages whose bits are set may hold something: bit p%64 of word p/64 is page p.
  void AddHeld(std::size_t block, std::span<const std::uint64_t> words) noexcept;

  /// Where a page is to be written.
  std::uint8_t* Write(std::size_t block, std::uint64_t page) noexcept {
    Word(block, page).fetch_or(Bit(page), std::memory_order_relaxed);
    return memory_->At(block, page);
  }

  /// Makes a page read zeros.
  void Clear(std::size_t block, std::uint64_t page) noexcept;

 private:
  struct FreeWords {
    void operator()(std::atomic<std::uint64_t>* words) const noexcept;
  };
  using Words = std::unique_ptr<std::atomic<std::uint64_t>, FreeWords>;

  static std::uint64_t Bit(std::uint64_t page) noexcept { return std::uint64_t{1} << page % 64; }
  std::atomic<std::uint64_t>& Word(std::size_t block, std::uint64_t page) noexcept {
    return held_[block].get()[page / 64];
  }

  const std::shared_ptr<const GuestMemory> memory_;
  std::vector<Words> held_;
  bool is_usable_ = true;
};

}  // namespace pagelane::kernel
