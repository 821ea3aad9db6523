#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "kernel/guest_memory.h"
#include "kernel/hash.h"

namespace pagelane::kernel {

/// A digest of what was last copied of every page of guest memory; that of zeros at first.
///
/// What is compared with memory is what was copied, and not what memory was when it was compared
/// last: a page that was 0, then 1 while it was copied, then 0 again would look untouched.
/// Digests are seeded with a secret, so that a guest cannot make pages that are taken for equal.
/// A little over 8 bytes for a page, taken only where pages occur. Any thread may call anything.
class PageDigests {
 public:
  /// Makes room for the pages of `memory`; null if there is none.
  static std::unique_ptr<PageDigests> Make(std::shared_ptr<GuestMemory> memory);
  ~PageDigests();
  PageDigests(const PageDigests&) = delete;
  PageDigests& operator=(const PageDigests&) = delete;

  const GuestMemory& memory() const noexcept { return *memory_; }

  /// Notes what was copied of one page.
  void Note(std::size_t block, std::uint64_t page, const std::uint8_t* copy) noexcept;

  /// Sets the bits of pages that differ from what was copied. The first page is a multiple of 32.
  ///
  /// populated: of the block; pages without a bit are zeros, and are not read.
  /// words:     of the block, lowest bit first; others may change words of other pages meanwhile.
  void Compare(std::size_t block, std::uint64_t first_page, std::uint64_t page_count,
               std::span<const std::uint32_t> populated,
               std::span<std::uint32_t> words) const noexcept;

 private:
  explicit PageDigests(std::shared_ptr<GuestMemory> memory) noexcept;
  std::uint64_t DigestOf(const std::uint8_t* page) const noexcept;

  const std::shared_ptr<GuestMemory> memory_;
  const Hasher hash_;
  std::uint64_t seed_ = 0;
  std::uint64_t zero_hash_ = 0;
  struct Digests {
    std::uint64_t* of_page = nullptr;  // 0 is the digest of zeros
    std::uint32_t* noted = nullptr;    // a bit for each page that ever had another
  };
  std::vector<Digests> blocks_;
};

}  // namespace pagelane::kernel
