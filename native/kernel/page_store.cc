#include "kernel/page_store.h"

#include <sys/mman.h>

namespace pagelane::kernel {

PageStore::PageStore(std::uint32_t page_bits, std::uint32_t slot_count) noexcept
    : page_bits_(page_bits) {
  const std::size_t bytes = std::size_t{slot_count} << page_bits;
  if (bytes == 0) {
    return;
  }
  void* pages = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (pages == MAP_FAILED) {
    return;
  }
  // Slots are taken one after another, so that huge pages fill up; a refusal costs only speed.
  madvise(pages, bytes, MADV_HUGEPAGE);
  // A guest's pages have no business in a core file.
  madvise(pages, bytes, MADV_DONTDUMP);
  pages_ = static_cast<std::uint8_t*>(pages);
  mapped_bytes_ = bytes;
  slot_count_ = slot_count;
}

PageStore::~PageStore() {
  if (pages_ != nullptr) {
    munmap(pages_, mapped_bytes_);
  }
}

}  // namespace pagelane::kernel
