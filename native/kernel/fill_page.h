#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernel/bytes.h"

namespace pagelane::kernel {

/// Tells whether bytes are their first 8 repeated. Any alignment; byte_count is a multiple of 64.
using FillTest = bool (*)(const std::uint8_t* bytes, std::size_t byte_count) noexcept;

/// One way to test a page.
struct FillPageVariant {
  const char* name;
  FillTest test;
};

/// Variants that run on this processor and passed their self-test; the portable one is first.
std::span<const FillPageVariant> FillPageVariants() noexcept;

/// The variant that was fastest in a self-test of less than a millisecond, made at the first call.
const FillPageVariant& FastestFillPage() noexcept;

/// Tells whether a page is its first 8 bytes repeated, as a page of zeros is too.
///
/// Most pages that are not are found out by three of their words.
inline bool IsFillPage(const std::uint8_t* page, std::size_t page_bytes, FillTest test) noexcept {
  const auto first = LoadLe<std::uint64_t>(page);
  if (first != LoadLe<std::uint64_t>(page + page_bytes / 2) ||
      first != LoadLe<std::uint64_t>(page + page_bytes - 8)) {
    return false;
  }
  return test(page, page_bytes);
}

/// The same with the fastest variant.
///
/// page_bytes: a multiple of 64, at least 64.
bool IsFillPage(const std::uint8_t* page, std::size_t page_bytes) noexcept;

/// The variants themselves; only what `DetectCpu` allows may be called.
bool IsFillPortable(const std::uint8_t* bytes, std::size_t byte_count) noexcept;
#if defined(__x86_64__)
bool IsFillAvx2(const std::uint8_t* bytes, std::size_t byte_count) noexcept;
bool IsFillAvx512(const std::uint8_t* bytes, std::size_t byte_count) noexcept;
#elif defined(__aarch64__)
bool IsFillNeon(const std::uint8_t* bytes, std::size_t byte_count) noexcept;
#endif

}  // namespace pagelane::kernel
