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

#pragma GCC target("avx2")
#undef XXH_INLINE_ALL
#define XXH_INLINE_ALL
#define XXH_VECTOR XXH_AVX2
#include <xxhash.h>

namespace pagelane::kernel {

std::uint64_t Hash64Avx2(const std::uint8_t* bytes, std::size_t byte_count,
                        std::uint64_t seed) noexcept {
  return XXH3_64bits_withSeed(bytes, byte_count, seed);
}

}  // namespace pagelane::kernel

#endif  // defined(__x86_64__)
