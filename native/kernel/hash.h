#pragma once

#include <cstddef>
#include <cstdint>

namespace pagelane::kernel {

/// XXH3_64 of `byte_count` bytes; `bytes` may be null if there are none.
std::uint64_t Hash64(const std::uint8_t* bytes, std::size_t byte_count,
                     std::uint64_t seed) noexcept;

/// Version of the hash's implementation, such as "0.8.1".
const char* HashVersion() noexcept;

}  // namespace pagelane::kernel
