#include "kernel/zero_page.h"

#if defined(__x86_64__)

#include <immintrin.h>

namespace pagelane::kernel {

// Both loops take eight vectors per branch: with fewer, the branches cost more than the loads.
// The target attributes let one binary run on every x86-64 processor.

__attribute__((target("avx2"))) bool IsZeroAvx2(const std::uint8_t* bytes,
                                                std::size_t byte_count) noexcept {
  std::size_t at = 0;
  for (; at + 256 <= byte_count; at += 256) {
    const auto* vectors = reinterpret_cast<const __m256i*>(bytes + at);
    const __m256i a = _mm256_or_si256(_mm256_loadu_si256(vectors), _mm256_loadu_si256(vectors + 1));
    const __m256i b =
        _mm256_or_si256(_mm256_loadu_si256(vectors + 2), _mm256_loadu_si256(vectors + 3));
    const __m256i c =
        _mm256_or_si256(_mm256_loadu_si256(vectors + 4), _mm256_loadu_si256(vectors + 5));
    const __m256i d =
        _mm256_or_si256(_mm256_loadu_si256(vectors + 6), _mm256_loadu_si256(vectors + 7));
    const __m256i all = _mm256_or_si256(_mm256_or_si256(a, b), _mm256_or_si256(c, d));
    if (_mm256_testz_si256(all, all) == 0) {
      return false;
    }
  }
  for (; at < byte_count; at += 64) {
    const auto* vectors = reinterpret_cast<const __m256i*>(bytes + at);
    const __m256i all =
        _mm256_or_si256(_mm256_loadu_si256(vectors), _mm256_loadu_si256(vectors + 1));
    if (_mm256_testz_si256(all, all) == 0) {
      return false;
    }
  }
  return true;
}

__attribute__((target("avx512f,avx512bw"))) bool IsZeroAvx512(const std::uint8_t* bytes,
                                                              std::size_t byte_count) noexcept {
  std::size_t at = 0;
  for (; at + 512 <= byte_count; at += 512) {
    const std::uint8_t* vectors = bytes + at;
    const __m512i a =
        _mm512_or_si512(_mm512_loadu_si512(vectors), _mm512_loadu_si512(vectors + 64));
    const __m512i b =
        _mm512_or_si512(_mm512_loadu_si512(vectors + 128), _mm512_loadu_si512(vectors + 192));
    const __m512i c =
        _mm512_or_si512(_mm512_loadu_si512(vectors + 256), _mm512_loadu_si512(vectors + 320));
    const __m512i d =
        _mm512_or_si512(_mm512_loadu_si512(vectors + 384), _mm512_loadu_si512(vectors + 448));
    const __m512i all = _mm512_or_si512(_mm512_or_si512(a, b), _mm512_or_si512(c, d));
    if (_mm512_test_epi64_mask(all, all) != 0) {
      return false;
    }
  }
  for (; at < byte_count; at += 64) {
    const __m512i all = _mm512_loadu_si512(bytes + at);
    if (_mm512_test_epi64_mask(all, all) != 0) {
      return false;
    }
  }
  return true;
}

}  // namespace pagelane::kernel

#endif  // defined(__x86_64__)
