#include "kernel/bitmap.h"

#if defined(__x86_64__)

// GCC 12's own vectors that may have any value are a warning to it.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>

namespace pagelane::kernel {

namespace {

/// Writes the indexes of the bits that are set. Four at a time, whether or not there are as many:
/// how many cannot be guessed, so a branch for each would be guessed wrong.
///
/// Returns: behind the last.
__attribute__((target("bmi,popcnt"), always_inline)) inline std::uint16_t* PushBits(
    std::uint64_t bits, std::size_t base, std::uint16_t* out) noexcept {
  std::uint16_t* end = out + _mm_popcnt_u64(bits);
  do {
    for (int i = 0; i < 4; i++) {
      out[i] = static_cast<std::uint16_t>(base + _tzcnt_u64(bits));
      bits = _blsr_u64(bits);
    }
    out += 4;
  } while (__builtin_expect(bits != 0, 0));
  return end;
}

}  // namespace

__attribute__((target("avx2,bmi,popcnt"))) std::size_t FindEdgesAvx2(
    const std::uint64_t* words, std::uint16_t* edges) noexcept {
  std::uint16_t* out = edges;
  for (std::size_t i = 0; i < kBitmapBlockWords; i += 4) {
    const __m256i now = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(words + i));
    const __m256i before = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(words + i - 1));
    const __m256i shifted =
        _mm256_or_si256(_mm256_add_epi64(now, now), _mm256_srli_epi64(before, 63));
    const __m256i changed = _mm256_xor_si256(now, shifted);
    if (_mm256_testz_si256(changed, changed) != 0) {
      continue;
    }
    alignas(32) std::uint64_t bits[4];
    _mm256_store_si256(reinterpret_cast<__m256i*>(bits), changed);
    for (std::size_t word = 0; word < 4; word++) {
      out = PushBits(bits[word], 64 * (i + word), out);
    }
  }
  return static_cast<std::size_t>(out - edges);
}

__attribute__((target("avx2"))) void WriteRunsAvx2(const std::uint16_t* edges,
                                                   std::size_t edge_count, double base,
                                                   double* runs) noexcept {
  const __m256d bases = _mm256_set_pd(0, base, 0, base);
  std::size_t i = 0;
  for (; i + 4 <= edge_count; i += 4) {
    const __m128i four =
        _mm_cvtepu16_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(edges + i)));
    const __m128i begins = _mm_slli_epi64(four, 32);  // below each end
    const __m256d found = _mm256_cvtepi32_pd(_mm_sub_epi32(four, begins));
    _mm256_storeu_pd(runs + i, _mm256_add_pd(found, bases));
  }
  WriteRunsPortable(edges + i, edge_count - i, base, runs + i);
}

__attribute__((target("popcnt"))) std::uint64_t CountBitsAvx2(const std::uint64_t* words,
                                                              std::size_t word_count) noexcept {
  std::uint64_t count = 0;
  for (std::size_t i = 0; i < word_count; i++) {
    count += static_cast<std::uint64_t>(_mm_popcnt_u64(words[i]));
  }
  return count;
}

#define AVX512_BITS                                                                          \
  __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vbmi2,"          \
                        "avx512vpopcntdq,popcnt")))

namespace {

/// Bytes 0..63, each `Make` of its index.
template <std::uint8_t (*Make)(unsigned)>
struct Lanes {
  alignas(64) std::uint8_t bytes[64];
  constexpr Lanes() noexcept : bytes() {
    for (unsigned i = 0; i < 64; i++) {
      bytes[i] = Make(i);
    }
  }
};

constexpr std::uint8_t TimesEight(unsigned i) noexcept { return static_cast<std::uint8_t>(8 * i); }
constexpr std::uint8_t Eighth(unsigned i) noexcept { return static_cast<std::uint8_t>(i / 8); }
constexpr std::uint8_t OfEight(unsigned i) noexcept { return static_cast<std::uint8_t>(i % 8); }

constexpr Lanes<TimesEight> kTimesEight;
constexpr Lanes<Eighth> kEighth;
constexpr Lanes<OfEight> kOfEight;

/// Writes the indexes of the bits of eight bytes, `values`, that lie at the bits `places`.
AVX512_BITS inline std::uint16_t* PushEightBytes(std::uint64_t values, __m512i places,
                                                 std::size_t base, std::uint16_t* out) noexcept {
  const __m512i indexes =
      _mm512_add_epi8(_mm512_permutexvar_epi8(_mm512_load_si512(kEighth.bytes), places),
                      _mm512_load_si512(kOfEight.bytes));
  const __m512i found = _mm512_maskz_compress_epi8(values, indexes);
  const auto count = static_cast<unsigned>(_mm_popcnt_u64(values));
  const __m256i few = _mm256_cvtepu8_epi16(_mm512_castsi512_si128(found));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out),
                      _mm256_add_epi16(few, _mm256_set1_epi16(static_cast<short>(base))));
  if (__builtin_expect(count > 16, 0)) {
    const __m512i bases = _mm512_set1_epi16(static_cast<short>(base));
    const __m512i low = _mm512_cvtepu8_epi16(_mm512_castsi512_si256(found));
    const __m512i high = _mm512_cvtepu8_epi16(_mm512_extracti64x4_epi64(found, 1));
    _mm512_storeu_si512(out, _mm512_add_epi16(low, bases));
    _mm512_storeu_si512(out + 32, _mm512_add_epi16(high, bases));
  }
  return out + count;
}

/// Writes the indexes of the bits of 32 bytes, of which `used` are not zero: nearly always at most
/// eight, where few pages are dirty.
AVX512_BITS inline std::uint16_t* PushHalf(__m256i bytes, __mmask32 used, std::size_t base,
                                           std::uint16_t* out) noexcept {
  const __m256i values = _mm256_maskz_compress_epi8(used, bytes);
  const __m256i places = _mm256_maskz_compress_epi8(
      used, _mm256_load_si256(reinterpret_cast<const __m256i*>(kTimesEight.bytes)));
  out = PushEightBytes(static_cast<std::uint64_t>(_mm256_extract_epi64(values, 0)),
                       _mm512_castsi256_si512(places), base, out);
  const auto count = static_cast<unsigned>(_mm_popcnt_u32(used));
  if (__builtin_expect(count > 8, 0)) {
    alignas(32) std::uint64_t all_values[4];
    alignas(32) std::uint64_t all_places[4];
    _mm256_store_si256(reinterpret_cast<__m256i*>(all_values), values);
    _mm256_store_si256(reinterpret_cast<__m256i*>(all_places), places);
    for (unsigned i = 1; 8 * i < count; i++) {
      const __m512i here = _mm512_set1_epi64(static_cast<long long>(all_places[i]));
      out = PushEightBytes(all_values[i], here, base, out);
    }
  }
  return out;
}

}  // namespace

AVX512_BITS std::size_t FindEdgesAvx512(const std::uint64_t* words, std::uint16_t* edges) noexcept {
  std::uint16_t* out = edges;
  for (std::size_t i = 0; i < kBitmapBlockWords; i += 8) {
    const __m512i now = _mm512_loadu_si512(words + i);
    const __m512i before = _mm512_loadu_si512(words + i - 1);
    const __m512i changed = _mm512_xor_si512(now, _mm512_shldi_epi64(now, before, 1));
    const __mmask64 used = _mm512_test_epi8_mask(changed, changed);
    if (used == 0) {
      continue;
    }
    out = PushHalf(_mm512_castsi512_si256(changed), static_cast<__mmask32>(used), 64 * i, out);
    out = PushHalf(_mm512_extracti64x4_epi64(changed, 1), static_cast<__mmask32>(used >> 32),
                   64 * i + 256, out);
  }
  return static_cast<std::size_t>(out - edges);
}

AVX512_BITS void WriteRunsAvx512(const std::uint16_t* edges, std::size_t edge_count, double base,
                                 double* runs) noexcept {
  const __m512d bases = _mm512_maskz_mov_pd(0x55, _mm512_set1_pd(base));
  for (std::size_t i = 0; i < edge_count; i += 8) {
    const __m256i eight =
        _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(edges + i)));
    const __m256i begins = _mm256_slli_epi64(eight, 32);  // below each end
    const __m512d found = _mm512_cvtepi32_pd(_mm256_sub_epi32(eight, begins));
    if (i + 8 <= edge_count) {
      _mm512_storeu_pd(runs + i, _mm512_add_pd(found, bases));
    } else {
      const auto left = static_cast<__mmask8>((1u << (edge_count - i)) - 1);
      _mm512_mask_storeu_pd(runs + i, left, _mm512_add_pd(found, bases));
    }
  }
}

AVX512_BITS std::uint64_t CountBitsAvx512(const std::uint64_t* words,
                                                   std::size_t word_count) noexcept {
  __m512i counts = _mm512_setzero_si512();
  std::size_t i = 0;
  for (; i + 8 <= word_count; i += 8) {
    counts = _mm512_add_epi64(counts, _mm512_popcnt_epi64(_mm512_loadu_si512(words + i)));
  }
  auto count = static_cast<std::uint64_t>(_mm512_reduce_add_epi64(counts));
  for (; i < word_count; i++) {
    count += static_cast<std::uint64_t>(_mm_popcnt_u64(words[i]));
  }
  return count;
}

}  // namespace pagelane::kernel

#endif  // defined(__x86_64__)
