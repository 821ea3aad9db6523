#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernel/block_table.h"

namespace pagelane::kernel {

/// Which pages the current epoch holds: a bit per page, per RAM block.
///
/// Memory is reserved for every page but touched only where pages occur, 32 KiB for a GiB of guest
/// memory in pages of 4 KiB. A new epoch costs nothing: stretches of the bitmaps carry the number
/// of the epoch they speak of, and are cleared when a later one first touches them.
class EpochSet {
 public:
  EpochSet() noexcept = default;
  ~EpochSet();
  EpochSet(const EpochSet&) = delete;
  EpochSet& operator=(const EpochSet&) = delete;

  /// Makes room for the pages of `blocks`, all absent. False if there is no memory; then the set
  /// is empty, and no page may be asked for.
  bool Reset(const BlockTable& blocks);

  /// Forgets all pages.
  void BeginEpoch() noexcept { epoch_++; }

  bool Has(std::size_t block, std::uint64_t page) const noexcept {
    const Bits& bits = bits_[block];
    return bits.epochs[page / kStretchPages] == epoch_ &&
           ((bits.words[page / 64] >> (page % 64)) & 1) != 0;
  }

  void Add(std::size_t block, std::uint64_t page) noexcept {
    const Bits& bits = bits_[block];
    const std::uint64_t stretch = page / kStretchPages;
    if (bits.epochs[stretch] != epoch_) {
      ClearStretch(bits, stretch);
    }
    bits.words[page / 64] |= std::uint64_t{1} << (page % 64);
  }

 private:
  static constexpr std::uint64_t kStretchPages = 32768;  // one page of 4 KiB in bits

  struct Bits {
    std::uint64_t* words = nullptr;   // a whole number of stretches
    std::uint64_t* epochs = nullptr;  // one per stretch; 0 is no epoch
  };

  void ClearStretch(const Bits& bits, std::uint64_t stretch) noexcept;
  void Free() noexcept;

  std::vector<Bits> bits_;
  std::uint64_t epoch_ = 1;
};

}  // namespace pagelane::kernel
