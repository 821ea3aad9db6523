#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace pagelane::kernel {

/// What became of an encoding: whether it fits, and its bytes. An equal page fits with 0 bytes.
struct DeltaResult {
  bool fits;
  std::size_t bytes;
};

/// Marks the 8-byte words in which `page` and `base` differ, one bit a word, lowest bit first.
///
/// byte_count: a multiple of 64. Any alignment.
/// masks:      ceil(byte_count / 512) words; bits past the end are cleared.
using ChangeFinder = void (*)(const std::uint8_t* base, const std::uint8_t* page,
                              std::size_t byte_count, std::uint64_t* masks) noexcept;

/// One way to find what changed.
struct DeltaVariant {
  const char* name;
  ChangeFinder find;
};

/// Variants that run on this processor and passed their self-test; the portable one is first.
std::span<const DeltaVariant> DeltaVariants() noexcept;

/// The variant that was fastest in a self-test of less than a millisecond, made at the first call.
const DeltaVariant& FastestDelta() noexcept;

/// Encodes `page` as its difference from `base`, in words of 8 bytes. A delta is a list of runs:
///
///     | words skipped | words changed, >= 1 | the changed words, XORed with the base's |
///     | ULEB128       | ULEB128             | 8 bytes each                             |
///
/// Counts have as few bytes as they can. Only the first run may skip nothing: two runs that touch
/// are one. Nothing follows the last changed word. An unchanged word costs more inside a run than
/// the next run's counts do, so that a run never holds one.
///
/// page_bytes: a multiple of 64.
/// Promise:    `out` is written up to out_bytes at most; if the delta has more, it holds nothing
///             of use.
DeltaResult EncodeDelta(const std::uint8_t* base, const std::uint8_t* page, std::size_t page_bytes,
                        std::uint8_t* out, std::size_t out_bytes) noexcept;

/// The same with one variant.
DeltaResult EncodeDelta(const std::uint8_t* base, const std::uint8_t* page, std::size_t page_bytes,
                        std::uint8_t* out, std::size_t out_bytes, ChangeFinder find) noexcept;

/// Applies a delta from the wire to `page`, which holds the base.
///
/// page_bytes: a multiple of 8.
/// Promise:    nothing outside both is read or written, whatever the delta is.
/// Returns:    false if the delta is no list of runs as above, or leaves the page; then the page
///             may have any content.
bool ApplyDelta(const std::uint8_t* delta, std::size_t delta_bytes, std::uint8_t* page,
                std::size_t page_bytes) noexcept;

/// The variants themselves; only what `DetectCpu` allows may be called.
void FindChangesPortable(const std::uint8_t* base, const std::uint8_t* page,
                         std::size_t byte_count, std::uint64_t* masks) noexcept;
#if defined(__x86_64__)
void FindChangesAvx2(const std::uint8_t* base, const std::uint8_t* page, std::size_t byte_count,
                     std::uint64_t* masks) noexcept;
void FindChangesAvx512(const std::uint8_t* base, const std::uint8_t* page, std::size_t byte_count,
                       std::uint64_t* masks) noexcept;
#elif defined(__aarch64__)
void FindChangesNeon(const std::uint8_t* base, const std::uint8_t* page, std::size_t byte_count,
                     std::uint64_t* masks) noexcept;
#endif

}  // namespace pagelane::kernel
