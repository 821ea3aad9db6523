#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "kernel/bytes.h"
#include "kernel/qemu_format.h"
#include "support.h"

/// Reads what a batch was decoded to as QEMU would, slowly, and checks that it is what was planned.
class RecordReader {
 public:
  explicit RecordReader(const Destination& destination)
      : decoded_(destination.decoded()),
        blocks_(destination.blocks()),
        has_footer_(destination.has_footer()),
        bytes_(destination.output()),
        block_(destination.decoded().entry_block) {}

  void ReadAll() {
    bool is_inside = decoded_.opens_inside;
    while (!bytes_.empty()) {
      is_inside = is_inside ? ReadInside() : ReadMark(pagelane::kernel::kSectionPart);
    }
    Check(is_inside == decoded_.ends_inside, "ends as planned");
    Check(pages_ == decoded_.pages && zero_pages_ == decoded_.zero_pages, "pages as planned");
    Check(block_ == decoded_.last_block || pages_ == 0, "last block as planned");
    Check(record_ == decoded_.last_record, "last record is where it was planned");
    Check(record_end_ == decoded_.last_record_end, "last record ends where it was planned");
  }

 private:
  std::span<const std::uint8_t> Take(std::size_t count) {
    Check(count <= bytes_.size(), "a record is whole");
    const std::span<const std::uint8_t> taken = bytes_.first(count);
    bytes_ = bytes_.subspan(count);
    at_ += static_cast<std::int64_t>(count);
    return taken;
  }

  bool ReadMark(std::uint8_t type) {
    const std::span<const std::uint8_t> mark = Take(pagelane::kernel::kSectionMarkBytes);
    Check(mark[0] == type, "a section mark is of its type");
    Check(pagelane::kernel::LoadBe32(mark.data() + 1) == kSectionId, "the section is the stream's");
    return true;
  }

  /// Reads a record or the end of a section; false if it was the end.
  bool ReadInside() {
    using namespace pagelane::kernel;
    const std::int64_t begin = at_;
    const std::uint64_t header = LoadBe64(Take(kRecordHeaderBytes).data());
    if (header == kRamFlagEos) {
      if (has_footer_) {
        ReadMark(kSectionFooter);
      }
      return false;
    }
    if ((header & kRamFlagContinue) == 0) {
      const std::size_t name_bytes = Take(1)[0];
      const std::span<const std::uint8_t> name = Take(name_bytes);
      block_ = blocks_.Find({reinterpret_cast<const char*>(name.data()), name_bytes});
    }
    Check(block_ >= 0, "the block is known");
    Check(header >> kPageBits < blocks_.at(static_cast<std::size_t>(block_)).page_count,
          "the page is in its block");
    ReadBody(header & (kPageBytes - 1) & ~kRamFlagContinue);
    pages_++;
    Check(pages_ > 1 || begin == decoded_.first_record, "first record is where it was planned");
    Check(pages_ > 1 || block_ == decoded_.first_block, "first block as planned");
    record_ = begin;
    record_end_ = at_;
    return true;
  }

  void ReadBody(std::uint64_t flag) {
    using namespace pagelane::kernel;
    switch (flag) {
      case kRamFlagZero:
        Check(Take(1)[0] == 0, "a zero page is of zeros");
        zero_pages_++;
        break;
      case kRamFlagPage:
        Take(kPageBytes);
        break;
      case kRamFlagXbzrle: {
        const std::span<const std::uint8_t> head = Take(kXbzrleHeadBytes);
        Check(head[0] == 1, "XBZRLE is of the encoding that there is");
        Check(Take(LoadBe16(head.data() + 1)).size() <= kPageBytes, "XBZRLE fits its page");
        break;
      }
      case kRamFlagCompress:
        Take(LoadBe32(Take(kCompressHeadBytes).data()));
        break;
      default:
        Check(false, "a record is of a kind that there is");
    }
  }

  const pagelane::kernel::DecodedBatch& decoded_;
  const pagelane::kernel::BlockTable& blocks_;
  const bool has_footer_;
  std::span<const std::uint8_t> bytes_;
  std::int32_t block_;
  std::int64_t at_ = 0;
  std::int64_t record_ = -1;
  std::int64_t record_end_ = -1;
  std::uint64_t pages_ = 0;
  std::uint64_t zero_pages_ = 0;
};
