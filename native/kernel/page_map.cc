#include "kernel/page_map.h"

#include <cstdlib>

namespace pagelane::kernel {

PageMap::~PageMap() {
  Free();
}

bool PageMap::Reset(const BlockTable& blocks) {
  Free();
  blocks_.resize(blocks.count());
  for (std::size_t i = 0; i < blocks.count(); i++) {
    const std::uint64_t page_count = blocks.at(i).page_count;
    // calloc hands out untouched zero pages for large sizes, and costs no time there.
    blocks_[i].numbers =
        static_cast<std::uint32_t*>(std::calloc(page_count + 1, sizeof(std::uint32_t)));
    if (blocks_[i].numbers == nullptr) {
      Free();
      return false;
    }
    blocks_[i].page_count = page_count;
  }
  return true;
}

void PageMap::Free() noexcept {
  for (Numbers& block : blocks_) {
    std::free(block.numbers);
  }
  blocks_.clear();
}

}  // namespace pagelane::kernel
