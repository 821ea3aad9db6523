#pragma once

#include <cstddef>
#include <cstdint>

#include "kernel/bytes.h"

namespace pagelane::kernel {

/* Fixed by the protocol: docs/protocol.md, section 7 */

inline constexpr std::uint8_t kBatchMessage = 4;
inline constexpr std::size_t kBatchHeaderBytes = 32;
inline constexpr std::size_t kMapEntryBytes = 16;
/// Bytes of the header that the checksum covers.
inline constexpr std::size_t kHeaderSummedBytes = 24;

inline constexpr std::uint8_t kHeaderInside = 1;
inline constexpr std::uint8_t kHeaderHasLastBlock = 8;

/// Kind of a map entry. Values are on the wire: never renumber.
enum class EntryKind : std::uint8_t {
  kSectionBegin = 0x01,
  kSectionEnd = 0x02,
  kZero = 0x10,
  kRaw = 0x11,
  kBlank = 0x12,
  kXbzrle = 0x13,
  kCompress = 0x14,
};

/// The first record of the entry names its block even if the last one was of the same.
inline constexpr std::uint8_t kEntryNamesBlock = 1;

constexpr bool IsPageKind(EntryKind kind) noexcept {
  return kind >= EntryKind::kZero;
}

constexpr bool IsForeignKind(EntryKind kind) noexcept {
  return kind >= EntryKind::kXbzrle;
}

/// The header of a batch.
///
///    0  u8 4             1  u8 codec          2  u8 flags        3  u8 page bits
///    4  u16 last block   6  u16 zero          8  u32 map bytes  12  u32 literal bytes, decoded
///   16  u32 literal bytes on the wire        20  u32 page count 24  u64 checksum
struct BatchHeader {
  std::uint8_t codec = 0;
  std::uint8_t flags = 0;
  std::uint8_t page_bits = 0;
  std::uint16_t last_block = 0;
  std::uint32_t map_bytes = 0;
  std::uint32_t literal_bytes = 0;
  std::uint32_t wire_bytes = 0;
  std::uint32_t page_count = 0;
  std::uint64_t checksum = 0;

  static BatchHeader Load(const std::uint8_t* bytes) noexcept {
    BatchHeader header;
    header.codec = bytes[1];
    header.flags = bytes[2];
    header.page_bits = bytes[3];
    header.last_block = LoadLe<std::uint16_t>(bytes + 4);
    header.map_bytes = LoadLe<std::uint32_t>(bytes + 8);
    header.literal_bytes = LoadLe<std::uint32_t>(bytes + 12);
    header.wire_bytes = LoadLe<std::uint32_t>(bytes + 16);
    header.page_count = LoadLe<std::uint32_t>(bytes + 20);
    header.checksum = LoadLe<std::uint64_t>(bytes + 24);
    return header;
  }

  void Store(std::uint8_t* bytes) const noexcept {
    bytes[0] = kBatchMessage;
    bytes[1] = codec;
    bytes[2] = flags;
    bytes[3] = page_bits;
    StoreLe<std::uint16_t>(bytes + 4, last_block);
    StoreLe<std::uint16_t>(bytes + 6, 0);
    StoreLe<std::uint32_t>(bytes + 8, map_bytes);
    StoreLe<std::uint32_t>(bytes + 12, literal_bytes);
    StoreLe<std::uint32_t>(bytes + 16, wire_bytes);
    StoreLe<std::uint32_t>(bytes + 20, page_count);
    StoreLe<std::uint64_t>(bytes + 24, checksum);
  }
};

/// An entry of the map.
///
///    0  u8 kind   1  u8 flags   2  u16 block   4  u16 count   6  u16 length   8  u64 first page
struct MapEntry {
  EntryKind kind = EntryKind::kSectionBegin;
  std::uint8_t flags = 0;
  std::uint16_t block = 0;
  std::uint16_t count = 0;
  std::uint16_t length = 0;
  std::uint64_t first_page = 0;

  static MapEntry Load(const std::uint8_t* bytes) noexcept {
    MapEntry entry;
    entry.kind = static_cast<EntryKind>(bytes[0]);
    entry.flags = bytes[1];
    entry.block = LoadLe<std::uint16_t>(bytes + 2);
    entry.count = LoadLe<std::uint16_t>(bytes + 4);
    entry.length = LoadLe<std::uint16_t>(bytes + 6);
    entry.first_page = LoadLe<std::uint64_t>(bytes + 8);
    return entry;
  }

  void Store(std::uint8_t* bytes) const noexcept {
    bytes[0] = static_cast<std::uint8_t>(kind);
    bytes[1] = flags;
    StoreLe<std::uint16_t>(bytes + 2, block);
    StoreLe<std::uint16_t>(bytes + 4, count);
    StoreLe<std::uint16_t>(bytes + 6, length);
    StoreLe<std::uint64_t>(bytes + 8, first_page);
  }
};

}  // namespace pagelane::kernel
