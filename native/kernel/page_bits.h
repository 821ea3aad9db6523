#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

namespace pagelane::kernel {

/// Sets the bits from `first` to below `end`, lowest bit of each word first.
inline void SetBits(std::span<std::uint32_t> words, std::uint64_t first,
                    std::uint64_t end) noexcept {
  while (first < end) {
    const std::uint64_t bit = first % 32;
    const std::uint64_t count = std::min(end - first, 32 - bit);
    words[first / 32] |= static_cast<std::uint32_t>(((std::uint64_t{1} << count) - 1) << bit);
    first += count;
  }
}

}  // namespace pagelane::kernel
