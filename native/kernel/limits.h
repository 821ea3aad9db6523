#pragma once

#include <cstddef>
#include <cstdint>

namespace pagelane::kernel {

/* Fixed by the protocol: docs/protocol.md, section 8 */
inline constexpr std::uint64_t kPayloadBytesMax = 2 * 1024 * 1024;
inline constexpr std::uint64_t kMapBytesMax = 64 * 1024;
inline constexpr std::uint64_t kContentBytesMax = 1024 * 1024;
/// References and contents of a batch.
inline constexpr std::uint64_t kLiteralBytesMax = kContentBytesMax + 8 * 1024;
/// Pages of the store in front of a batch's literals while they are decompressed.
inline constexpr std::uint64_t kPrefixBytesMax = 512 * 1024;
/// Window of a zstd frame: literals and prefix.
inline constexpr std::uint64_t kWindowBytesMax = 2 * 1024 * 1024;
inline constexpr std::uint64_t kBatchNumberMax = (std::uint64_t{1} << 31) - 2;
inline constexpr std::uint64_t kStoreSlotsMax = std::uint64_t{1} << 31;
inline constexpr std::uint64_t kZeroPagesMax = 16384;
/// Pages of a batch that are not zero pages, each counted as the bytes of a page.
inline constexpr std::uint64_t kBodyBytesMax = 1024 * 1024;
inline constexpr std::uint64_t kBlocksMax = 4096;
inline constexpr std::uint64_t kBlockNameBytesMax = 255;
inline constexpr std::uint64_t kBlockBytesMax = std::uint64_t{1} << 52;
inline constexpr std::uint32_t kPageBitsMin = 10;
inline constexpr std::uint32_t kPageBitsMax = 16;
inline constexpr std::uint64_t kRunPagesMax = 65535;
inline constexpr std::uint64_t kForeignBytesMax = 65535;

/* Chosen by us */
/// Entries by which a map names its prefix.
inline constexpr std::size_t kPrefixEntriesMax = 128;

/* Fixed by src/native.ts */
/// Bytes in front of the literals of a slot.
inline constexpr std::size_t kSlotRoomBytes = 76 * 1024;
/// Bytes in front of the records of a decoded batch.
inline constexpr std::size_t kDecodedRoomBytes = 1024;

}  // namespace pagelane::kernel
