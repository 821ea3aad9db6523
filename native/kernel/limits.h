#pragma once

#include <cstddef>
#include <cstdint>

namespace pagelane::kernel {

/* Fixed by the protocol: docs/protocol.md, section 8 */
inline constexpr std::uint64_t kPayloadBytesMax = 2 * 1024 * 1024;
inline constexpr std::uint64_t kMapBytesMax = 64 * 1024;
inline constexpr std::uint64_t kLiteralBytesMax = 1024 * 1024;
inline constexpr std::uint64_t kZeroPagesMax = 16384;
/// Raw, blank and foreign pages of a batch, each counted as the bytes of a page.
inline constexpr std::uint64_t kBodyBytesMax = 1024 * 1024;
inline constexpr std::uint64_t kBlocksMax = 4096;
inline constexpr std::uint64_t kBlockNameBytesMax = 255;
inline constexpr std::uint64_t kBlockBytesMax = std::uint64_t{1} << 52;
inline constexpr std::uint32_t kPageBitsMin = 10;
inline constexpr std::uint32_t kPageBitsMax = 16;
inline constexpr std::uint64_t kRunPagesMax = 65535;
inline constexpr std::uint64_t kForeignBytesMax = 65535;

/* Fixed by src/native.ts */
/// Bytes in front of the literals of a slot.
inline constexpr std::size_t kSlotRoomBytes = 66 * 1024;
/// Bytes in front of the records of a decoded batch.
inline constexpr std::size_t kDecodedRoomBytes = 1024;

}  // namespace pagelane::kernel
