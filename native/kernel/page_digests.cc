#include "kernel/page_digests.h"

#include <sys/mman.h>
#include <sys/random.h>

#include <bit>
#include <utility>

namespace pagelane::kernel {

namespace {

std::uint64_t RandomSeed() noexcept {
  std::uint64_t seed = 0;
  // As few bytes as these are given whole, once the system has any.
  while (getrandom(&seed, sizeof seed, 0) != sizeof seed) {
  }
  return seed;
}

/// Memory of zeros that is taken as it is written to; null if there is none.
void* Reserve(std::uint64_t byte_count) noexcept {
  void* memory = mmap(nullptr, byte_count, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return memory == MAP_FAILED ? nullptr : memory;
}

std::uint64_t DigestBytes(std::uint64_t page_count) noexcept {
  return page_count * sizeof(std::uint64_t);
}

std::uint64_t NotedBytes(std::uint64_t page_count) noexcept {
  return (page_count + 31) / 32 * sizeof(std::uint32_t);
}

}  // namespace

PageDigests::PageDigests(std::shared_ptr<GuestMemory> memory) noexcept
    : memory_(std::move(memory)), hash_(FastestHash().hash), seed_(RandomSeed()) {}

std::unique_ptr<PageDigests> PageDigests::Make(std::shared_ptr<GuestMemory> memory) {
  std::unique_ptr<PageDigests> made(new PageDigests(std::move(memory)));
  const std::vector<std::uint8_t> zeros(made->memory_->page_bytes());
  made->zero_hash_ = made->hash_(zeros.data(), zeros.size(), made->seed_);
  made->blocks_.resize(made->memory_->block_count());
  for (std::size_t i = 0; i < made->blocks_.size(); i++) {
    const std::uint64_t page_count = made->memory_->PageCount(i);
    Digests& digests = made->blocks_[i];
    digests.of_page = static_cast<std::uint64_t*>(Reserve(DigestBytes(page_count)));
    digests.noted = static_cast<std::uint32_t*>(Reserve(NotedBytes(page_count)));
    if (digests.of_page == nullptr || digests.noted == nullptr) {
      return nullptr;
    }
  }
  return made;
}

PageDigests::~PageDigests() {
  for (std::size_t i = 0; i < blocks_.size(); i++) {
    const std::uint64_t page_count = memory_->PageCount(i);
    if (blocks_[i].of_page != nullptr) {
      munmap(blocks_[i].of_page, DigestBytes(page_count));
    }
    if (blocks_[i].noted != nullptr) {
      munmap(blocks_[i].noted, NotedBytes(page_count));
    }
  }
}

std::uint64_t PageDigests::DigestOf(const std::uint8_t* page) const noexcept {
  return hash_(page, memory_->page_bytes(), seed_) ^ zero_hash_;
}

void PageDigests::Note(std::size_t block, std::uint64_t page, const std::uint8_t* copy) noexcept {
  const std::uint64_t digest = DigestOf(copy);
  Digests& digests = blocks_[block];
  std::uint32_t& noted = digests.noted[page / 32];
  const std::uint32_t bit = std::uint32_t{1} << (page % 32);
  // Zeros take no memory where nothing else was.
  if ((__atomic_load_n(&noted, __ATOMIC_RELAXED) & bit) == 0) {
    if (digest == 0) {
      return;
    }
    __atomic_fetch_or(&noted, bit, __ATOMIC_RELAXED);
  }
  __atomic_store_n(&digests.of_page[page], digest, __ATOMIC_RELAXED);
}

void PageDigests::Compare(std::size_t block, std::uint64_t first_page, std::uint64_t page_count,
                          std::span<const std::uint32_t> populated,
                          std::span<std::uint32_t> words) const noexcept {
  const Digests& digests = blocks_[block];
  const std::uint64_t page_end = first_page + page_count;
  const std::uint64_t word_end = (page_end + 31) / 32;
  for (std::uint64_t word = first_page / 32; word < word_end; word++) {
    const std::uint32_t filled = populated[word];
    std::uint32_t left = filled | __atomic_load_n(&digests.noted[word], __ATOMIC_RELAXED);
    for (; left != 0; left &= left - 1) {
      const int bit = std::countr_zero(left);
      const std::uint64_t page = word * 32 + static_cast<std::uint64_t>(bit);
      if (page >= page_end) {
        break;
      }
      const bool is_filled = ((filled >> bit) & 1) != 0;
      const std::uint64_t digest = is_filled ? DigestOf(memory_->At(block, page)) : 0;
      if (__atomic_load_n(&digests.of_page[page], __ATOMIC_RELAXED) != digest) {
        words[word] |= std::uint32_t{1} << bit;
      }
    }
  }
}

}  // namespace pagelane::kernel
