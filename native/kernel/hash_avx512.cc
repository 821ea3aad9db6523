#include "kernel/hash.h"

#if defined(__x86_64__)

// Whatever xxhash.h includes comes before: only the hash itself is compiled for the processor.
#include <immintrin.h>

#include <cassert>
#include <climits>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

// GCC 12 warns of its own header.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC target("avx512f,avx512bw")
#undef XXH_INLINE_ALL
#define XXH_INLINE_ALL
#define XXH_VECTOR XXH_AVX512
#include <xxhash.h>

namespace pagelane::kernel {

std::uint64_t Hash64Avx512(const std::uint8_t* bytes, std::size_t byte_count,
                          std::uint64_t seed) noexcept {
  return XXH3_64bits_withSeed(bytes, byte_count, seed);
}

}  // namespace pagelane::kernel

#endif  // defined(__x86_64__)
