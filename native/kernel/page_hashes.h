#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <shared_mutex>
#include <span>
#include <vector>

#include "kernel/block_table.h"
#include "kernel/page_map.h"

namespace pagelane::kernel {

/// What a comparison of memory with the pages that were decoded found.
struct Comparison {
  /// Pages that were compared, and those of them that differ.
  std::uint64_t pages = 0;
  std::uint64_t differing = 0;
  /// Pages whose contents never were known here: not decoded, or in an encoding of QEMU's.
  std::uint64_t unknown = 0;
  /// Of those that differ, if any does.
  std::uint64_t first_differing = 0;
  /// Why memory could not be read: an errno, or kFileEnded; 0 if it was.
  int error = 0;
};

/// Memory ends before the last page that is to be compared.
inline constexpr int kFileEnded = -1;

/// The hash of every guest page as it was decoded last. Any thread may call anything.
///
/// Memory is reserved for every page, and taken only where pages occur: 3 MiB for a GiB of guest
/// memory in pages of 4 KiB.
class PageHashes {
 public:
  /// Makes room for the pages of `blocks`. Not usable if there is no memory.
  explicit PageHashes(const BlockTable& blocks);
  PageHashes(const PageHashes&) = delete;
  PageHashes& operator=(const PageHashes&) = delete;

  bool is_usable() const noexcept { return is_usable_; }
  std::size_t page_bytes() const noexcept { return page_bytes_; }
  bool Has(std::size_t block, std::uint64_t page) const noexcept {
    return numbers_.Has(block, page);
  }

  /// Notes the pages of a batch, but for those that a batch with a higher number had.
  ///
  /// map:    of the batch, inspected; pages that there is no room for are left out.
  /// hashes: of each page that is neither zero nor blank nor foreign, in the order of the map.
  void Note(std::span<const std::uint8_t> map, std::uint32_t number,
            const std::uint64_t* hashes) noexcept;

  /// Compares pages of guest memory with what was noted last, and adds to `comparison`.
  ///
  /// pages: whole pages, from the page `first_page` of a block on; all of them `Has` must know.
  void Compare(std::size_t block, std::uint64_t first_page, std::span<const std::uint8_t> pages,
               Comparison* comparison) const noexcept;

 private:
  struct Free {
    void operator()(void* memory) const noexcept;
  };
  using Hashes = std::unique_ptr<std::uint64_t[], Free>;

  void NotePage(std::size_t block, std::uint64_t page, std::uint32_t mark,
                std::uint64_t hash) noexcept;

  const std::size_t page_bytes_;
  std::uint64_t zero_hash_ = 0;
  bool is_usable_ = false;
  mutable std::shared_mutex mutex_;
  /// Number of the batch that had the page last, from 1, and whether its contents are unknown.
  PageMap numbers_;
  std::vector<Hashes> hashes_;
};

/// Compares pages with what an open file has where they are, counted from its beginning.
///
/// buffer: at least a page.
/// Returns: what was found until the end, or until the file could not be read.
Comparison CompareFile(const PageHashes& hashes, int file, std::size_t block,
                       std::uint64_t first_page, std::uint64_t page_count,
                       std::span<std::uint8_t> buffer) noexcept;

}  // namespace pagelane::kernel
