#pragma once

#include <cstddef>
#include <cstdint>

#include "kernel/bytes.h"

namespace pagelane::kernel {

/* Fixed by the protocol: docs/protocol.md, section 7 */

inline constexpr std::uint8_t kBatchMessage = 4;
inline constexpr std::size_t kBatchHeaderBytes = 40;
inline constexpr std::size_t kMapEntryBytes = 16;
/// Bytes of the header that the checksum covers.
inline constexpr std::size_t kHeaderSummedBytes = 32;
/// A slot of the page store, as the references of a batch name it.
inline constexpr std::size_t kReferenceBytes = 4;
/// What a run of fill pages repeats.
inline constexpr std::size_t kFillBytes = 8;

inline constexpr std::uint8_t kHeaderInside = 1;
inline constexpr std::uint8_t kHeaderHasLastBlock = 8;

/// Kind of a map entry. Values are on the wire: never renumber.
enum class EntryKind : std::uint8_t {
  kSectionBegin = 0x01,
  kSectionEnd = 0x02,
  kPrefix = 0x03,
  kZero = 0x10,
  kRaw = 0x11,
  kBlank = 0x12,
  kXbzrle = 0x13,
  kCompress = 0x14,
  kFill = 0x15,
  kSame = 0x16,
  kDelta = 0x17,
};

/// The first record of the entry names its block even if the last one was of the same.
inline constexpr std::uint8_t kEntryNamesBlock = 1;
/// The receiver keeps the entry's pages in its store, one slot after another.
inline constexpr std::uint8_t kEntryKeeps = 2;

constexpr bool IsPageKind(EntryKind kind) noexcept {
  return kind >= EntryKind::kZero;
}

constexpr bool IsForeignKind(EntryKind kind) noexcept {
  return kind == EntryKind::kXbzrle || kind == EntryKind::kCompress;
}

/// Whether the pages of an entry may be kept.
constexpr bool IsKeepableKind(EntryKind kind) noexcept {
  return kind == EntryKind::kRaw || kind == EntryKind::kDelta;
}

/// References that an entry takes: the slot its pages are like, and the slot they are kept in.
constexpr std::size_t ReferencesOf(EntryKind kind, std::uint8_t flags) noexcept {
  const bool refers = kind == EntryKind::kSame || kind == EntryKind::kDelta;
  return (refers ? 1U : 0U) + ((flags & kEntryKeeps) != 0 ? 1U : 0U);
}

/// The header of a batch.
///
///    0  u8 4             1  u8 codec          2  u8 flags        3  u8 page bits
///    4  u16 last block   6  u16 zero          8  u32 map bytes  12  u32 literal bytes, decoded
///   16  u32 literal bytes on the wire        20  u32 page count 24  u32 number
///   28  u32 base                             32  u64 checksum
struct BatchHeader {
  std::uint8_t codec = 0;
  std::uint8_t flags = 0;
  std::uint8_t page_bits = 0;
  std::uint16_t last_block = 0;
  std::uint32_t map_bytes = 0;
  std::uint32_t literal_bytes = 0;
  std::uint32_t wire_bytes = 0;
  std::uint32_t page_count = 0;
  std::uint32_t number = 0;
  std::uint32_t base = 0;
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
    header.number = LoadLe<std::uint32_t>(bytes + 24);
    header.base = LoadLe<std::uint32_t>(bytes + 28);
    header.checksum = LoadLe<std::uint64_t>(bytes + 32);
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
    StoreLe<std::uint32_t>(bytes + 24, number);
    StoreLe<std::uint32_t>(bytes + 28, base);
    StoreLe<std::uint64_t>(bytes + 32, checksum);
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

/// Bytes of contents that an entry takes; references are not counted.
constexpr std::size_t ContentBytesOf(const MapEntry& entry, std::size_t page_bytes) noexcept {
  switch (entry.kind) {
    case EntryKind::kRaw:
      return entry.count * page_bytes;
    case EntryKind::kFill:
      return kFillBytes;
    case EntryKind::kXbzrle:
    case EntryKind::kCompress:
    case EntryKind::kDelta:
      return entry.length;
    default:
      return 0;
  }
}

/// Writes a page that repeats the word at `word`.
inline void FillPage(const std::uint8_t* word, std::uint8_t* page,
                     std::size_t page_bytes) noexcept {
  for (std::size_t at = 0; at < page_bytes; at += kFillBytes) {
    std::memcpy(page + at, word, kFillBytes);
  }
}

}  // namespace pagelane::kernel
