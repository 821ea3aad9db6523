#include "kernel/qemu_ram.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <new>
#include <string_view>
#include <utility>

#include "kernel/bytes.h"
#include "kernel/fill_page.h"
#include "kernel/limits.h"
#include "kernel/qemu_format.h"

/*
 * Flow of a record
 *
 *   1. read   header, block id, and what precedes the body, as far as they are there
 *   2. take   refuse it if the epoch has the page or the batch is full; else into the batch
 *
 * A record whose end is missing is held, and read again from its first byte when more arrives.
 */

namespace pagelane::kernel {

namespace {

/// Largest record of any kind.
constexpr std::size_t RecordBytesMax(std::size_t page_bytes) noexcept {
  return kRecordHeaderBytes + 1 + kBlockNameBytesMax + kCompressHeadBytes +
         static_cast<std::size_t>(CompressBound(page_bytes));
}

}  // namespace

RamCutter::RamCutter(std::uint32_t page_bits)
    : page_bits_(page_bits),
      page_bytes_(std::size_t{1} << page_bits),
      held_bytes_max_(RecordBytesMax(page_bytes_)),
      zero_test_(FastestZeroPage().test),
      blocks_(new BlockTable(page_bits)),
      held_pages_(page_bits),
      builder_(page_bits),
      held_(new (std::nothrow) std::uint8_t[held_bytes_max_]) {}

bool RamCutter::SetBlocks(std::unique_ptr<const BlockTable> blocks) {
  assert(BatchEntries() == 0);
  blocks_ = std::move(blocks);
  last_block_ = -1;
  builder_.SetEntry(is_inside_section_, last_block_);
  if (epoch_.Reset(*blocks_) && held_pages_.Reset(*blocks_)) {
    return true;
  }
  blocks_.reset(new BlockTable(page_bits_));
  return false;
}

void RamCutter::Begin(std::uint8_t* slot, std::size_t slot_bytes) noexcept {
  builder_.Begin(slot, slot_bytes);
  builder_.SetEntry(is_inside_section_, last_block_);
}

void RamCutter::SetInside(bool is_inside) noexcept {
  is_inside_section_ = is_inside;
  if (BatchEntries() == 0) {
    builder_.SetEntry(is_inside_section_, last_block_);
  }
}

bool RamCutter::Mark(EntryKind kind, bool is_inside) noexcept {
  assert(has_slot() && is_inside_section_ != is_inside);
  if (!builder_.FitsEntry()) {
    return false;
  }
  builder_.AddMark(kind);
  is_inside_section_ = is_inside;
  return true;
}

CutResult RamCutter::Cut(std::span<const std::uint8_t> chunk) noexcept {
  assert(has_slot());
  std::size_t used = 0;
  if (held_bytes_ > 0) {
    const CutResult begun = CutHeld(chunk);
    if (begun.stop != CutStop::kInput || held_bytes_ > 0) {
      return begun;
    }
    used = begun.used_bytes;
  }
  while (used < chunk.size()) {
    Record record;
    std::size_t needed = 0;
    const std::uint8_t* bytes = chunk.data() + used;
    switch (ReadRecord(bytes, chunk.size() - used, &record, &needed)) {
      case Read::kWhole: {
        const CutStop stop = Take(record, bytes);
        if (stop != CutStop::kInput) {
          return {used, stop};
        }
        used += record.head_bytes + record.body_bytes;
        break;
      }
      case Read::kPart:
        held_bytes_ = chunk.size() - used;
        assert(held_bytes_ < held_bytes_max_);
        std::memcpy(held_.get(), bytes, held_bytes_);
        return {chunk.size(), CutStop::kInput};
      case Read::kEnd:
        return {used + kRecordHeaderBytes, CutStop::kSectionEnd};
      case Read::kUnknown:
        return {used, CutStop::kUnknown};
      case Read::kBadPage:
        return {used, CutStop::kBadPage};
    }
  }
  return {used, CutStop::kInput};
}

/// Completes the record in `held_` from the beginning of `chunk`.
CutResult RamCutter::CutHeld(std::span<const std::uint8_t> chunk) noexcept {
  const std::size_t held_before = held_bytes_;
  std::size_t used = 0;
  CutStop stop = CutStop::kInput;
  while (stop == CutStop::kInput) {
    Record record;
    std::size_t needed = 0;
    switch (ReadRecord(held_.get(), held_bytes_, &record, &needed)) {
      case Read::kWhole:
        stop = Take(record, held_.get());
        if (stop == CutStop::kInput) {
          held_bytes_ = 0;
          return {used, stop};
        }
        break;
      case Read::kPart: {
        if (used == chunk.size()) {
          return {used, CutStop::kInput};
        }
        assert(needed > held_bytes_ && needed <= held_bytes_max_);
        const std::size_t taken = std::min(needed - held_bytes_, chunk.size() - used);
        std::memcpy(held_.get() + held_bytes_, chunk.data() + used, taken);
        held_bytes_ += taken;
        used += taken;
        break;
      }
      case Read::kEnd:
        held_bytes_ = 0;
        return {used, CutStop::kSectionEnd};
      case Read::kUnknown:
        stop = CutStop::kUnknown;
        break;
      case Read::kBadPage:
        stop = CutStop::kBadPage;
        break;
    }
  }
  held_bytes_ = held_before;  // the caller still has the bytes of this chunk
  return {0, stop};
}

RamCutter::Read RamCutter::ReadRecord(const std::uint8_t* bytes, std::size_t byte_count,
                                      Record* record, std::size_t* needed_bytes) const noexcept {
  *needed_bytes = kRecordHeaderBytes;
  if (byte_count < kRecordHeaderBytes) {
    return Read::kPart;
  }
  const std::uint64_t header = LoadBe64(bytes);
  if (header == kRamFlagEos) {
    return Read::kEnd;
  }
  const std::uint64_t flags = header & (page_bytes_ - 1);
  record->flag = flags & ~kRamFlagContinue;
  record->names_block = (flags & kRamFlagContinue) == 0;
  record->page = header >> page_bits_;
  switch (record->flag) {
    case kRamFlagPage:
    case kRamFlagZero:
    case kRamFlagXbzrle:
    case kRamFlagCompress:
      break;
    default:
      return Read::kUnknown;
  }
  const Read block = ReadBlock(bytes, byte_count, record, needed_bytes);
  return block == Read::kWhole ? ReadBody(bytes, byte_count, record, needed_bytes) : block;
}

/// Reads the block id, or takes the last block, and checks the page against it.
RamCutter::Read RamCutter::ReadBlock(const std::uint8_t* bytes, std::size_t byte_count,
                                     Record* record, std::size_t* needed_bytes) const noexcept {
  std::int32_t block = last_block_;
  record->head_bytes = kRecordHeaderBytes;
  if (record->names_block) {
    *needed_bytes = kRecordHeaderBytes + 1;
    if (byte_count < *needed_bytes) {
      return Read::kPart;
    }
    const std::size_t name_bytes = bytes[kRecordHeaderBytes];
    record->head_bytes = kRecordHeaderBytes + 1 + name_bytes;
    *needed_bytes = record->head_bytes;
    if (byte_count < *needed_bytes) {
      return Read::kPart;
    }
    block = FindBlock(bytes + kRecordHeaderBytes + 1, name_bytes);
  }
  if (block < 0 || record->page >= blocks_->at(static_cast<std::size_t>(block)).page_count) {
    return Read::kBadPage;
  }
  record->block = static_cast<std::uint16_t>(block);
  return Read::kWhole;
}

/// Finds out how long the body is, and whether it is one that a batch can hold.
RamCutter::Read RamCutter::ReadBody(const std::uint8_t* bytes, std::size_t byte_count,
                                    Record* record, std::size_t* needed_bytes) const noexcept {
  const std::uint8_t* body = bytes + record->head_bytes;
  const std::size_t body_count = byte_count - record->head_bytes;
  std::uint64_t body_bytes = page_bytes_;
  if (record->flag == kRamFlagZero) {
    body_bytes = 1;
    if (body_count >= 1 && body[0] != 0) {
      return Read::kUnknown;  // filled with another byte: older QEMU reads it, none writes it
    }
  } else if (record->flag == kRamFlagXbzrle) {
    *needed_bytes = record->head_bytes + kXbzrleHeadBytes;
    if (body_count < kXbzrleHeadBytes) {
      return Read::kPart;
    }
    const std::uint64_t length = LoadBe16(body + 1);
    body_bytes = kXbzrleHeadBytes + length;
    if (body[0] != 1 || length > page_bytes_ || body_bytes > kForeignBytesMax) {
      return Read::kUnknown;
    }
  } else if (record->flag == kRamFlagCompress) {
    *needed_bytes = record->head_bytes + kCompressHeadBytes;
    if (body_count < kCompressHeadBytes) {
      return Read::kPart;
    }
    const std::uint64_t length = LoadBe32(body);
    body_bytes = kCompressHeadBytes + length;
    if (length > CompressBound(page_bytes_) || body_bytes > kForeignBytesMax) {
      return Read::kUnknown;
    }
  }
  record->body_bytes = static_cast<std::size_t>(body_bytes);
  *needed_bytes = record->head_bytes + record->body_bytes;
  return body_count < record->body_bytes ? Read::kPart : Read::kWhole;
}

/// Puts a whole record into the batch, or says why not; `bytes` is its first byte.
CutStop RamCutter::Take(const Record& record, const std::uint8_t* bytes) noexcept {
  const std::uint8_t* body = bytes + record.head_bytes;
  const bool is_page = record.flag == kRamFlagPage;
  if (is_page && Holds(record.block, record.page, body)) {
    last_block_ = record.block;
    return CutStop::kInput;
  }
  if (!is_page && record.flag != kRamFlagZero) {
    // It may say what changed since the version before, which must not be one that is held.
    has_foreign_ = true;
    may_hold_ = false;
    const CutStop stop = Release();
    if (stop != CutStop::kInput) {
      return stop;
    }
  }
  if (!IsWithinReach(record)) {
    return CutStop::kBatchFull;
  }
  const bool begins = builder_.page_count() == 0;
  const bool names_again = record.names_block && record.block == last_block_;
  const CutStop stop = TakeBody(record, names_again, body);
  if (stop == CutStop::kInput) {
    last_block_ = record.block;
    last_page_ = record.page;
    first_page_ = begins ? record.page : first_page_;
  }
  return stop;
}

bool RamCutter::IsWithinReach(const Record& record) const noexcept {
  const std::uint64_t pages = builder_.page_count();
  if (reach_pages_ == 0 || pages == 0) {
    return true;
  }
  return pages < reach_pages_ && record.block == last_block_ && record.page > last_page_ &&
         record.page - first_page_ < reach_span_;
}

/// Whether a page with contents is held instead of taken.
bool RamCutter::Holds(std::uint16_t block, std::uint64_t page, const std::uint8_t* body) noexcept {
  if (held_pages_.Has(block, page)) {
    held_pages_.Replace(block, page, body);
    return true;
  }
  return may_hold_ && held_pages_.ChangesOften(block, page) &&
         held_pages_.Hold(block, page, body);
}

CutStop RamCutter::TakeBody(const Record& record, bool names_again,
                            const std::uint8_t* body) noexcept {
  if (record.flag == kRamFlagPage) {
    return TakePage(record.block, record.page, names_again, body);
  }
  if (epoch_.Has(record.block, record.page)) {
    return CutStop::kPageAgain;
  }
  if (record.flag == kRamFlagZero) {
    if (!builder_.FitsZero()) {
      return CutStop::kBatchFull;
    }
    if (held_pages_.Has(record.block, record.page)) {
      held_pages_.Drop(record.block, record.page);
    }
    builder_.AddZero(record.block, record.page, names_again);
  } else {
    if (!builder_.FitsBody(record.body_bytes)) {
      return CutStop::kBatchFull;
    }
    const EntryKind kind =
        record.flag == kRamFlagXbzrle ? EntryKind::kXbzrle : EntryKind::kCompress;
    builder_.AddForeign(kind, record.block, record.page, names_again, body,
                        static_cast<std::uint16_t>(record.body_bytes));
  }
  epoch_.Add(record.block, record.page);
  return CutStop::kInput;
}

CutStop RamCutter::TakePage(std::uint16_t block, std::uint64_t page, bool names_again,
                            const std::uint8_t* body) noexcept {
  if (epoch_.Has(block, page)) {
    return CutStop::kPageAgain;
  }
  if (!builder_.FitsBody(page_bytes_)) {
    return CutStop::kBatchFull;
  }
  if (IsZeroPage(body, page_bytes_, zero_test_)) {
    builder_.AddBlank(block, page, names_again);
  } else if (IsFillPage(body, page_bytes_)) {
    builder_.AddFill(block, page, names_again, LoadLe<std::uint64_t>(body));
  } else {
    builder_.AddRaw(block, page, names_again, body);
  }
  held_pages_.NoteSent(block, page);
  epoch_.Add(block, page);
  return CutStop::kInput;
}

CutStop RamCutter::Release() noexcept {
  while (held_pages_.count() > 0) {
    const HeldPages::Held held = held_pages_.Last();
    const CutStop stop = TakePage(held.block, held.page, false, held.bytes);
    if (stop != CutStop::kInput) {
      return stop;
    }
    held_pages_.DropLast();
  }
  return CutStop::kInput;
}

std::int32_t RamCutter::FindBlock(const std::uint8_t* name,
                                  std::size_t name_bytes) const noexcept {
  const std::string_view wanted(reinterpret_cast<const char*>(name), name_bytes);
  // QEMU's own channel for urgent pages names the same block on every page.
  if (last_block_ >= 0 && blocks_->at(static_cast<std::size_t>(last_block_)).name == wanted) {
    return last_block_;
  }
  return blocks_->Find(wanted);
}

}  // namespace pagelane::kernel
