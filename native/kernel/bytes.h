#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

namespace pagelane::kernel {

static_assert(std::endian::native == std::endian::little,
              "the batch format is read and written as the host's own byte order");

/// Little-endian loads and stores: fields of our own wire format. Any alignment.
template <typename Word>
inline Word LoadLe(const std::uint8_t* bytes) noexcept {
  Word word;
  std::memcpy(&word, bytes, sizeof word);
  return word;
}

template <typename Word>
inline void StoreLe(std::uint8_t* bytes, Word word) noexcept {
  std::memcpy(bytes, &word, sizeof word);
}

/// Big-endian loads and stores: fields of QEMU's stream. Any alignment.
inline std::uint16_t LoadBe16(const std::uint8_t* bytes) noexcept {
  return __builtin_bswap16(LoadLe<std::uint16_t>(bytes));
}

inline std::uint32_t LoadBe32(const std::uint8_t* bytes) noexcept {
  return __builtin_bswap32(LoadLe<std::uint32_t>(bytes));
}

inline std::uint64_t LoadBe64(const std::uint8_t* bytes) noexcept {
  return __builtin_bswap64(LoadLe<std::uint64_t>(bytes));
}

inline void StoreBe32(std::uint8_t* bytes, std::uint32_t word) noexcept {
  StoreLe(bytes, __builtin_bswap32(word));
}

inline void StoreBe64(std::uint8_t* bytes, std::uint64_t word) noexcept {
  StoreLe(bytes, __builtin_bswap64(word));
}

}  // namespace pagelane::kernel
