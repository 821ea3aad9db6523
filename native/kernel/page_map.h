#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernel/block_table.h"

namespace pagelane::kernel {

/// A number for every guest page, 0 at first.
///
/// Memory is reserved for every page, and taken only where pages occur: 1 MiB for a GiB of guest
/// memory in pages of 4 KiB.
class PageMap {
 public:
  PageMap() noexcept = default;
  ~PageMap();
  PageMap(const PageMap&) = delete;
  PageMap& operator=(const PageMap&) = delete;

  /// Makes room for the pages of `blocks`. False if there is no memory; then there is no page.
  bool Reset(const BlockTable& blocks);

  bool Has(std::size_t block, std::uint64_t page) const noexcept {
    return block < blocks_.size() && page < blocks_[block].page_count;
  }
  std::uint32_t& At(std::size_t block, std::uint64_t page) noexcept {
    return blocks_[block].numbers[page];
  }
  std::uint32_t At(std::size_t block, std::uint64_t page) const noexcept {
    return blocks_[block].numbers[page];
  }

 private:
  struct Numbers {
    std::uint32_t* numbers = nullptr;
    std::uint64_t page_count = 0;
  };
  void Free() noexcept;

  std::vector<Numbers> blocks_;
};

}  // namespace pagelane::kernel
