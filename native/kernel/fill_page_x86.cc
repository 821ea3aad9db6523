#include "kernel/fill_page.h"

#if defined(__x86_64__)

#include <immintrin.h>

namespace pagelane::kernel {

__attribute__((target("avx2"))) bool IsFillAvx2(const std::uint8_t* bytes,
                                                std::size_t byte_count) noexcept {
  const __m256i fill = _mm256_set1_epi64x(LoadLe<std::int64_t>(bytes));
  std::size_t at = 0;
  for (; at + 256 <= byte_count; at += 256) {
    const auto* vectors = reinterpret_cast<const __m256i*>(bytes + at);
    __m256i all = _mm256_setzero_si256();
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
      all = _mm256_or_si256(all, _mm256_xor_si256(_mm256_loadu_si256(vectors + i), fill));
    }
    if (_mm256_testz_si256(all, all) == 0) {
      return false;
    }
  }
  for (; at < byte_count; at += 64) {
    const auto* vectors = reinterpret_cast<const __m256i*>(bytes + at);
    const __m256i all =
        _mm256_or_si256(_mm256_xor_si256(_mm256_loadu_si256(vectors), fill),
                        _mm256_xor_si256(_mm256_loadu_si256(vectors + 1), fill));
    if (_mm256_testz_si256(all, all) == 0) {
      return false;
    }
  }
  return true;
}

namespace {

/// all | (vector at `bytes` ^ fill), in one instruction.
__attribute__((target("avx512f,avx512bw"), always_inline)) inline __m512i OrDifference(
    __m512i all, const std::uint8_t* bytes, __m512i fill) noexcept {
  return _mm512_ternarylogic_epi64(all, _mm512_loadu_si512(bytes), fill, 0xF6);
}

}  // namespace

__attribute__((target("avx512f,avx512bw"))) bool IsFillAvx512(const std::uint8_t* bytes,
                                                              std::size_t byte_count) noexcept {
  const __m512i fill = _mm512_set1_epi64(LoadLe<std::int64_t>(bytes));
  std::size_t at = 0;
  for (; at + 512 <= byte_count; at += 512) {
    __m512i low = _mm512_setzero_si512();
    __m512i high = low;
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
      low = OrDifference(low, bytes + at + 128 * i, fill);
      high = OrDifference(high, bytes + at + 128 * i + 64, fill);
    }
    const __m512i all = _mm512_or_si512(low, high);
    if (_mm512_test_epi64_mask(all, all) != 0) {
      return false;
    }
  }
  for (; at < byte_count; at += 64) {
    if (_mm512_cmpneq_epi64_mask(_mm512_loadu_si512(bytes + at), fill) != 0) {
      return false;
    }
  }
  return true;
}

}  // namespace pagelane::kernel

#endif  // defined(__x86_64__)
