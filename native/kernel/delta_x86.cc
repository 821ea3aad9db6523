#include "kernel/delta.h"

#if defined(__x86_64__)

#include <immintrin.h>

namespace pagelane::kernel {

namespace {

/// A bit for each of the 8 words of 64 bytes that differ.
__attribute__((target("avx2"), always_inline)) inline std::uint64_t Differ64Avx2(
    const std::uint8_t* base, const std::uint8_t* page) noexcept {
  const auto* bases = reinterpret_cast<const __m256i*>(base);
  const auto* pages = reinterpret_cast<const __m256i*>(page);
  const __m256i low = _mm256_cmpeq_epi64(_mm256_loadu_si256(bases), _mm256_loadu_si256(pages));
  const __m256i high =
      _mm256_cmpeq_epi64(_mm256_loadu_si256(bases + 1), _mm256_loadu_si256(pages + 1));
  const auto low_equal = static_cast<unsigned>(_mm256_movemask_pd(_mm256_castsi256_pd(low)));
  const auto high_equal = static_cast<unsigned>(_mm256_movemask_pd(_mm256_castsi256_pd(high)));
  return (low_equal | high_equal << 4) ^ 0xFF;
}

__attribute__((target("avx512f,avx512bw"), always_inline)) inline std::uint64_t Differ64Avx512(
    const std::uint8_t* base, const std::uint8_t* page) noexcept {
  return _mm512_cmpneq_epi64_mask(_mm512_loadu_si512(base), _mm512_loadu_si512(page));
}

}  // namespace

// Whole masks without a branch, then what is left of the page: a lambda would lose the target.

__attribute__((target("avx2"))) void FindChangesAvx2(const std::uint8_t* base,
                                                     const std::uint8_t* page,
                                                     std::size_t byte_count,
                                                     std::uint64_t* masks) noexcept {
  std::size_t at = 0;
  for (; at + 512 <= byte_count; at += 512) {
    std::uint64_t mask = 0;
#pragma GCC unroll 8
    for (unsigned i = 0; i < 8; i++) {
      mask |= Differ64Avx2(base + at + 64 * i, page + at + 64 * i) << (8 * i);
    }
    *masks++ = mask;
  }
  std::uint64_t mask = 0;
  for (unsigned shift = 0; at < byte_count; at += 64, shift += 8) {
    mask |= Differ64Avx2(base + at, page + at) << shift;
  }
  if (byte_count % 512 != 0) {
    *masks = mask;
  }
}

__attribute__((target("avx512f,avx512bw"))) void FindChangesAvx512(const std::uint8_t* base,
                                                                   const std::uint8_t* page,
                                                                   std::size_t byte_count,
                                                                   std::uint64_t* masks) noexcept {
  std::size_t at = 0;
  for (; at + 512 <= byte_count; at += 512) {
    std::uint64_t mask = 0;
#pragma GCC unroll 8
    for (unsigned i = 0; i < 8; i++) {
      mask |= Differ64Avx512(base + at + 64 * i, page + at + 64 * i) << (8 * i);
    }
    *masks++ = mask;
  }
  std::uint64_t mask = 0;
  for (unsigned shift = 0; at < byte_count; at += 64, shift += 8) {
    mask |= Differ64Avx512(base + at, page + at) << shift;
  }
  if (byte_count % 512 != 0) {
    *masks = mask;
  }
}

}  // namespace pagelane::kernel

#endif  // defined(__x86_64__)
