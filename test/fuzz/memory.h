#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string_view>
#include <utility>

#include "kernel/block_table.h"
#include "kernel/bytes.h"
#include "kernel/hash.h"
#include "kernel/qemu_format.h"
#include "support.h"

/// What a stream leaves in a guest's memory, slowly: a hash for each page that it names.
///
/// QEMU's own encodings say what changed since the page before; here that is a hash of both.
class Memory {
 public:
  /// Applies what a batch was decoded to, for a stream without footers.
  void Apply(const Destination& destination) {
    const pagelane::kernel::DecodedBatch& decoded = destination.decoded();
    std::span<const std::uint8_t> bytes = destination.output();
    if (!decoded.opens_inside && !bytes.empty()) {
      bytes = bytes.subspan(pagelane::kernel::kSectionMarkBytes);
    }
    Apply(destination.blocks(), bytes, decoded.entry_block, pagelane::kernel::kSectionMarkBytes);
  }

  /// Applies the bodies of sections, as far as their records are whole.
  ///
  /// block:      what the first record continues, -1 if nothing.
  /// mark_bytes: between two sections.
  void Apply(const pagelane::kernel::BlockTable& blocks, std::span<const std::uint8_t> bytes,
             std::int32_t block, std::size_t mark_bytes = 0) {
    using namespace pagelane::kernel;
    while (bytes.size() >= kRecordHeaderBytes) {
      const std::uint64_t header = LoadBe64(bytes.data());
      bytes = bytes.subspan(kRecordHeaderBytes);
      if (header == kRamFlagEos) {
        bytes = bytes.subspan(std::min(mark_bytes, bytes.size()));
        continue;
      }
      if ((header & kRamFlagContinue) == 0) {
        const std::size_t name_bytes = bytes.empty() ? 0 : bytes[0];
        if (bytes.size() <= name_bytes) {
          return;
        }
        block = blocks.Find({reinterpret_cast<const char*>(bytes.data()) + 1, name_bytes});
        bytes = bytes.subspan(1 + name_bytes);
      }
      const std::uint64_t flag = header & (kPageBytes - 1) & ~kRamFlagContinue;
      const std::size_t count = BodyBytes(flag, bytes);
      if (count > bytes.size()) {
        return;
      }
      Put({block, header >> kPageBits}, flag, bytes.first(count));
      bytes = bytes.subspan(count);
    }
  }

  void Clear() { pages_.clear(); }
  bool operator==(const Memory&) const = default;

 private:
  using Place = std::pair<std::int32_t, std::uint64_t>;

  static std::size_t BodyBytes(std::uint64_t flag, std::span<const std::uint8_t> bytes) {
    using namespace pagelane::kernel;
    switch (flag) {
      case kRamFlagZero:
        return 1;
      case kRamFlagXbzrle:
        return bytes.size() < 3 ? 3 : 3 + std::size_t{LoadBe16(bytes.data() + 1)};
      case kRamFlagCompress:
        return bytes.size() < 4 ? 4 : 4 + std::size_t{LoadBe32(bytes.data())};
      default:
        return kPageBytes;
    }
  }

  void Put(Place place, std::uint64_t flag, std::span<const std::uint8_t> body) {
    using namespace pagelane::kernel;
    static constexpr std::uint8_t kZeros[kPageBytes] = {};
    if (flag == kRamFlagZero) {
      body = kZeros;
    }
    const bool is_whole = flag == kRamFlagZero || flag == kRamFlagPage;
    pages_[place] = Hash64(body.data(), body.size(), is_whole ? 0 : pages_[place] + flag);
  }

  std::map<Place, std::uint64_t> pages_;
};
