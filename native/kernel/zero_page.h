#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace pagelane::kernel {

/// Tells whether `byte_count` bytes are all zero. Any alignment; byte_count is a multiple of 64.
using ZeroTest = bool (*)(const std::uint8_t* bytes, std::size_t byte_count) noexcept;

/// One way to test a page.
struct ZeroPageVariant {
  const char* name;
  ZeroTest test;
};

/// Variants that run on this processor and passed their self-test; the portable one is first.
std::span<const ZeroPageVariant> ZeroPageVariants() noexcept;

/// The variant that was fastest in a self-test of less than a millisecond, made at the first call.
const ZeroPageVariant& FastestZeroPage() noexcept;

/// Tells whether a page is all zero. Most pages that are not are found out by three of their bytes.
inline bool IsZeroPage(const std::uint8_t* page, std::size_t page_bytes, ZeroTest test) noexcept {
  if ((page[0] | page[page_bytes / 2] | page[page_bytes - 1]) != 0) {
    return false;
  }
  return test(page, page_bytes);
}

/// Marks the all-zero pages of `pages` in `bitmap`, one bit per page, lowest bit first.
///
/// pages:   page_count * page_bytes bytes; page_bytes is a multiple of 64.
/// bitmap:  at least ceil(page_count / 32) words; bits past page_count are cleared in all of it.
/// Returns: how many pages are zero.
std::size_t FindZeroPages(const std::uint8_t* pages, std::size_t page_count,
                          std::size_t page_bytes, std::span<std::uint32_t> bitmap,
                          ZeroTest test) noexcept;

/// The variants themselves; only what `DetectCpu` allows may be called.
bool IsZeroPortable(const std::uint8_t* bytes, std::size_t byte_count) noexcept;
#if defined(__x86_64__)
bool IsZeroAvx2(const std::uint8_t* bytes, std::size_t byte_count) noexcept;
bool IsZeroAvx512(const std::uint8_t* bytes, std::size_t byte_count) noexcept;
#elif defined(__aarch64__)
bool IsZeroNeon(const std::uint8_t* bytes, std::size_t byte_count) noexcept;
#endif

}  // namespace pagelane::kernel
