#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace pagelane::kernel {

/// XXH3_64 of `byte_count` bytes; `bytes` may be null if there are none.
std::uint64_t Hash64(const std::uint8_t* bytes, std::size_t byte_count,
                     std::uint64_t seed) noexcept;

/// XXH3_64 with one instruction set. `bytes` is not null.
using Hasher = std::uint64_t (*)(const std::uint8_t* bytes, std::size_t byte_count,
                                 std::uint64_t seed) noexcept;

/// XXH3_64 with one variant; `bytes` may be null as above.
std::uint64_t Hash64(const std::uint8_t* bytes, std::size_t byte_count, std::uint64_t seed,
                     Hasher hash) noexcept;

/// One way to hash; all give the same.
struct HashVariant {
  const char* name;
  Hasher hash;
};

/// Variants that run on this processor and passed their self-test; the portable one is first.
std::span<const HashVariant> HashVariants() noexcept;

/// The variant that was fastest in a self-test of less than a millisecond, made at the first call.
const HashVariant& FastestHash() noexcept;

/* Fixed by the protocol: docs/protocol.md, section 8 */
/// Bytes of a page's hash with a secret, and of the secret.
inline constexpr std::size_t kPageHashBytes = 16;
inline constexpr std::size_t kHashSecretBytes = 192;

/// XXH3_128 with a secret of kHashSecretBytes, as it is written with the lower half first: who does
/// not know the secret cannot write bytes that have the hash of others.
void HashWithSecret(const std::uint8_t* bytes, std::size_t byte_count,
                    const std::uint8_t* secret, std::uint8_t* hash) noexcept;

/// Version of the hash's implementation, such as "0.8.1".
const char* HashVersion() noexcept;

/// The variants themselves; only what `DetectCpu` allows may be called. The portable one has the
/// vectors that every processor of its architecture has: SSE2, NEON.
std::uint64_t Hash64Portable(const std::uint8_t* bytes, std::size_t byte_count,
                             std::uint64_t seed) noexcept;
#if defined(__x86_64__)
std::uint64_t Hash64Avx2(const std::uint8_t* bytes, std::size_t byte_count,
                         std::uint64_t seed) noexcept;
std::uint64_t Hash64Avx512(const std::uint8_t* bytes, std::size_t byte_count,
                           std::uint64_t seed) noexcept;
#endif

}  // namespace pagelane::kernel
