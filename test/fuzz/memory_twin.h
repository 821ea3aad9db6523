#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "kernel/batch_apply.h"
#include "kernel/bytes.h"
#include "kernel/guest_memory.h"
#include "kernel/memory_target.h"
#include "kernel/qemu_format.h"
#include "records.h"
#include "support.h"

/// Applies to guest memory what a destination decodes for QEMU, and checks that both do the same.
class MemoryTwin {
 public:
  MemoryTwin() : blocks_(SmallBlocks()), store_(kPageBits, kSlots) {}

  /// is_lost: a file of the memory was truncated.
  void Begin(bool has_store, bool is_lost = false) {
    has_store_ = has_store && store_.is_usable();
    memory_ = {};
    target_.reset();
    bytes_.assign((kFirstPages + kSecondPages) * kPageBytes, 0);
    wanted_ = bytes_;
    pagelane::kernel::MemoryFault fault;
    const pagelane::kernel::BlockSource sources[] = {
        {bytes_.data(), -1, 0, kFirstPages * kPageBytes},
        {bytes_.data() + kFirstPages * kPageBytes, -1, 0, kSecondPages * kPageBytes}};
    memory_ = pagelane::kernel::GuestMemory::Map(sources, kPageBits, true, &fault);
    Check(memory_ != nullptr, "buffers are mapped");
    memory_->loss()->store(is_lost);
    target_.emplace(memory_);
    Check(target_->is_usable() || allocation_failed, "memory for a target");
  }

  /// batch:   what the destination has just taken, or refused with `decoded`.
  /// before:  what its store had before, and `after` has now; `records` are what it made.
  void Take(std::span<const std::uint8_t> batch, pagelane::kernel::Fault decoded,
            std::span<const std::uint8_t> before, std::span<const std::uint8_t> after,
            std::span<const std::uint8_t> records, std::int32_t entry_block) {
    using namespace pagelane::kernel;
    if (allocation_failed) {
      return;
    }
    std::copy(before.begin(), before.end(), store_.At(0));
    Target target;
    target.blocks = blocks_.get();
    target.store = has_store_ ? &store_ : nullptr;
    DecodedBatch planned;
    const Fault applied = ApplyBatch(target, *target_, batch, scratch_, &planned);
    if (allocation_failed) {
      wanted_ = bytes_;
      return;
    }
    Check(applied || !memory_->is_lost(), "lost memory is told of");
    if (applied.code == FaultCode::kMemoryLost) {
      return;
    }
    Check(applied || !decoded, "what QEMU is not given, memory is not given");
    if (!applied) {
      Place(records, entry_block);
    } else {
      Check(decoded || IsForMemoryAlone(applied.code), "what QEMU is given, memory is given");
    }
    Check(bytes_ == wanted_, "memory is what QEMU would have, or as it was");
    Check(!has_store_ || std::equal(before.begin(), before.end(), store_.At(0)) || !applied,
          "what is refused is not kept");
    Check(applied || !has_store_ || std::equal(after.begin(), after.end(), store_.At(0)),
          "the same is kept");
  }

 private:
  static constexpr std::size_t kFirstPages = 40;
  static constexpr std::size_t kSecondPages = 2;

  /// Sections, QEMU's own encodings, and a block that no memory has.
  static bool IsForMemoryAlone(pagelane::kernel::FaultCode code) {
    using pagelane::kernel::FaultCode;
    return code == FaultCode::kMap || code == FaultCode::kPageIndex || code == FaultCode::kHeader;
  }

  void Place(std::span<const std::uint8_t> records, std::int32_t block) {
    using namespace pagelane::kernel;
    while (!records.empty()) {
      const std::uint64_t header = LoadBe64(records.data());
      records = records.subspan(kRecordHeaderBytes);
      if ((header & kRamFlagContinue) == 0) {
        const std::size_t name_bytes = records[0];
        block = blocks_->Find(
            {reinterpret_cast<const char*>(records.data()) + 1, name_bytes});
        records = records.subspan(1 + name_bytes);
      }
      const std::size_t first = block == 0 ? 0 : kFirstPages;
      std::uint8_t* page = wanted_.data() + (first + (header >> kPageBits)) * kPageBytes;
      if ((header & kRamFlagZero) != 0) {
        std::memset(page, 0, kPageBytes);
        records = records.subspan(1);
      } else {
        std::memcpy(page, records.data(), kPageBytes);
        records = records.subspan(kPageBytes);
      }
    }
  }

  std::unique_ptr<pagelane::kernel::BlockTable> blocks_;
  pagelane::kernel::PageStore store_;
  bool has_store_ = false;
  pagelane::kernel::Scratch scratch_;
  std::vector<std::uint8_t> bytes_;
  std::vector<std::uint8_t> wanted_;
  std::shared_ptr<pagelane::kernel::GuestMemory> memory_;
  std::optional<pagelane::kernel::MemoryTarget> target_;
};

/// Has a destination and its twin take a batch, and checks what they made of it.
inline void TakeTwice(std::span<const std::uint8_t> batch, Destination& destination,
                      MemoryTwin& twin) {
  const std::span<const std::uint8_t> stored = destination.stored();
  const std::vector<std::uint8_t> before(stored.begin(), stored.end());
  const pagelane::kernel::Fault fault = destination.Take(batch);
  if (!fault) {
    RecordReader(destination).ReadAll();
  }
  const std::span<const std::uint8_t> records =
      fault ? std::span<const std::uint8_t>() : destination.output();
  twin.Take(batch, fault, before, destination.stored(), records,
            destination.decoded().entry_block);
}
