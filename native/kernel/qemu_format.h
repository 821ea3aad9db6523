#pragma once

#include <cstddef>
#include <cstdint>

namespace pagelane::kernel {

/* Fixed by QEMU: migration/ram.c (flags), migration/savevm.h (section types) */
inline constexpr std::uint64_t kRamFlagZero = 0x002;
inline constexpr std::uint64_t kRamFlagPage = 0x008;
inline constexpr std::uint64_t kRamFlagEos = 0x010;
inline constexpr std::uint64_t kRamFlagContinue = 0x020;
inline constexpr std::uint64_t kRamFlagXbzrle = 0x040;
inline constexpr std::uint64_t kRamFlagCompress = 0x100;

inline constexpr std::uint8_t kSectionPart = 0x02;
inline constexpr std::uint8_t kSectionFooter = 0x7e;

/// The be64 that every record begins with.
inline constexpr std::size_t kRecordHeaderBytes = 8;
/// u8 1, be16 length.
inline constexpr std::size_t kXbzrleHeadBytes = 3;
/// be32 length.
inline constexpr std::size_t kCompressHeadBytes = 4;
/// u8 type, be32 section id: the beginning of a PART section, and a footer.
inline constexpr std::size_t kSectionMarkBytes = 5;

/// Largest zlib stream of one page. Source: zlib, compressBound; QEMU refuses longer ones.
constexpr std::uint64_t CompressBound(std::uint64_t page_bytes) noexcept {
  return page_bytes + (page_bytes >> 12) + (page_bytes >> 14) + (page_bytes >> 25) + 13;
}

}  // namespace pagelane::kernel
