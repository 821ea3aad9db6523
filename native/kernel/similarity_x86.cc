#include "kernel/similarity.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include <algorithm>

// GCC 12 warns of its own header.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"

namespace pagelane::kernel {

// Both multiply the halves of words where they lie, then gather low and high products of two
// vectors into one: so each of the multiplications that follow works on hashes only. The order of
// words is lost, and a maximum does not ask for it.

__attribute__((target("avx2"))) void FindFeaturesAvx2(
    const std::uint8_t* bytes, std::size_t byte_count,
    std::uint32_t* features) noexcept {
  const __m256i factors =
      _mm256_set1_epi64x(static_cast<std::int64_t>(std::uint64_t{kHighFactor} << 32 | kLowFactor));
  __m256i largest[kFeatures];
  __m256i feature_factors[kFeatures];
  for (std::size_t k = 0; k < kFeatures; k++) {
    largest[k] = _mm256_setzero_si256();
    feature_factors[k] = _mm256_set1_epi32(static_cast<int>(kFeatureFactors[k]));
  }
  for (std::size_t at = 0; at < byte_count; at += 64) {
    const auto* vectors = reinterpret_cast<const __m256i*>(bytes + at);
    const __m256 first =
        _mm256_castsi256_ps(_mm256_mullo_epi32(_mm256_loadu_si256(vectors), factors));
    const __m256 second =
        _mm256_castsi256_ps(_mm256_mullo_epi32(_mm256_loadu_si256(vectors + 1), factors));
    const __m256i low = _mm256_castps_si256(_mm256_shuffle_ps(first, second, 0x88));
    const __m256i high = _mm256_castps_si256(_mm256_shuffle_ps(first, second, 0xDD));
    __m256i hash = _mm256_xor_si256(low, high);
    hash = _mm256_xor_si256(hash, _mm256_srli_epi32(hash, 15));
#pragma GCC unroll 4
    for (std::size_t k = 0; k < kFeatures; k++) {
      largest[k] = _mm256_max_epu32(largest[k], _mm256_mullo_epi32(hash, feature_factors[k]));
    }
  }
  for (std::size_t k = 0; k < kFeatures; k++) {
    __m128i all = _mm_max_epu32(_mm256_castsi256_si128(largest[k]),
                                _mm256_extracti128_si256(largest[k], 1));
    all = _mm_max_epu32(all, _mm_shuffle_epi32(all, 0x4E));
    all = _mm_max_epu32(all, _mm_shuffle_epi32(all, 0xB1));
    features[k] = static_cast<std::uint32_t>(_mm_cvtsi128_si32(all));
  }
}

namespace {

/// The products of the halves of 8 words.
__attribute__((target("avx512f,avx512bw"), always_inline)) inline __m512 Products(
    const std::uint8_t* bytes, __m512i factors) noexcept {
  return _mm512_castsi512_ps(_mm512_mullo_epi32(_mm512_loadu_si512(bytes), factors));
}

}  // namespace

__attribute__((target("avx512f,avx512bw"))) void FindFeaturesAvx512(
    const std::uint8_t* bytes, std::size_t byte_count,
    std::uint32_t* features) noexcept {
  const __m512i factors =
      _mm512_set1_epi64(static_cast<std::int64_t>(std::uint64_t{kHighFactor} << 32 | kLowFactor));
  __m512i largest[kFeatures];
  __m512i feature_factors[kFeatures];
  for (std::size_t k = 0; k < kFeatures; k++) {
    largest[k] = _mm512_setzero_si512();
    feature_factors[k] = _mm512_set1_epi32(static_cast<int>(kFeatureFactors[k]));
  }
  for (std::size_t at = 0; at < byte_count; at += 128) {
    const __m512 first = Products(bytes + at, factors);
    // A last vector without a second is taken twice: its words are the same.
    const __m512 second = at + 128 <= byte_count ? Products(bytes + at + 64, factors) : first;
    const __m512i low = _mm512_castps_si512(_mm512_shuffle_ps(first, second, 0x88));
    const __m512i high = _mm512_castps_si512(_mm512_shuffle_ps(first, second, 0xDD));
    __m512i hash = _mm512_xor_si512(low, high);
    hash = _mm512_xor_si512(hash, _mm512_srli_epi32(hash, 15));
#pragma GCC unroll 4
    for (std::size_t k = 0; k < kFeatures; k++) {
      largest[k] = _mm512_max_epu32(largest[k], _mm512_mullo_epi32(hash, feature_factors[k]));
    }
  }
  for (std::size_t k = 0; k < kFeatures; k++) {
    std::uint32_t lanes[16];
    _mm512_storeu_si512(lanes, largest[k]);
    features[k] = *std::max_element(lanes, lanes + 16);
  }
}

}  // namespace pagelane::kernel

#endif  // defined(__x86_64__)
