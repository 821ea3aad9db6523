#include "kernel/epoch_set.h"

#include <algorithm>
#include <cstdlib>

namespace pagelane::kernel {

EpochSet::~EpochSet() {
  Free();
}

bool EpochSet::Reset(const BlockTable& blocks) {
  Free();
  epoch_ = 1;
  bits_.resize(blocks.count());
  for (std::size_t i = 0; i < blocks.count(); i++) {
    const std::uint64_t stretches = blocks.at(i).page_count / kStretchPages + 1;
    // calloc hands out untouched zero pages for large sizes, and costs no time there.
    bits_[i].words = static_cast<std::uint64_t*>(
        std::calloc(stretches * (kStretchPages / 64), sizeof(std::uint64_t)));
    bits_[i].epochs =
        static_cast<std::uint64_t*>(std::calloc(stretches, sizeof(std::uint64_t)));
    if (bits_[i].words == nullptr || bits_[i].epochs == nullptr) {
      Free();
      return false;
    }
  }
  return true;
}

void EpochSet::ClearStretch(const Bits& bits, std::uint64_t stretch) noexcept {
  std::uint64_t* words = bits.words + stretch * (kStretchPages / 64);
  // A stretch no epoch has touched is zero as it was allocated.
  if (bits.epochs[stretch] != 0) {
    std::fill_n(words, kStretchPages / 64, std::uint64_t{0});
  }
  bits.epochs[stretch] = epoch_;
}

void EpochSet::Free() noexcept {
  for (Bits& bits : bits_) {
    std::free(bits.words);
    std::free(bits.epochs);
  }
  bits_.clear();
}

}  // namespace pagelane::kernel
