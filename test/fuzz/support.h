#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "kernel/batch.h"
#include "kernel/batch_builder.h"
#include "kernel/block_table.h"
#include "kernel/limits.h"
#include "kernel/page_hashes.h"

// What the targets here share. How a batch is decoded is told in this file and nowhere else.

// What every target defines.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

/// A valid input, with a name for its file.
struct Seed {
  std::string name;
  std::vector<std::uint8_t> bytes;
};

/// Valid inputs; each target defines its own. `scripts/fuzz --seeds` writes them to the corpus.
std::vector<Seed> Seeds();

/// Ends the process if what must hold does not, in every build.
inline void Check(bool holds, const char* what) {
  if (!holds) {
    std::fprintf(stderr, "does not hold: %s\n", what);
    std::abort();
  }
}

/* Set by the replay driver, which replays every input with every allocation failing in turn */
inline bool allocations_may_fail = false;
inline int allocations_left = 0;
inline bool allocation_failed = false;

/// Whether the allocation that is about to be made is the one to fail.
inline bool FailsNow() {
  if (!allocations_may_fail || allocation_failed || allocations_left-- > 0) {
    return false;
  }
  allocation_failed = true;
  return true;
}

/// One `Thing` for all inputs, as a thread keeps its memory; one for each input while allocations
/// are made to fail.
template <typename Thing>
Thing& Kept() {
  static std::unique_ptr<Thing> thing;
  if (thing == nullptr || allocations_may_fail) {
    thing.reset();
    thing = std::make_unique<Thing>();
  }
  return *thing;
}

inline constexpr std::uint32_t kPageBits = 10;  // the smallest pages there are: inputs stay small
inline constexpr std::size_t kPageBytes = std::size_t{1} << kPageBits;
inline constexpr std::uint32_t kSectionId = 2;

/// Blocks of 40 pages and of 2, and one in which no sum of page indexes stays below a limit.
inline std::unique_ptr<pagelane::kernel::BlockTable> VastBlocks() {
  auto blocks = std::make_unique<pagelane::kernel::BlockTable>(kPageBits);
  blocks->Add("a", 40 * kPageBytes);
  blocks->Add("pc.bios", 2 * kPageBytes);
  blocks->Add("vast", pagelane::kernel::kBlockBytesMax);
  return blocks;
}

/// Those of the blocks above of which the pages can be counted.
inline std::unique_ptr<pagelane::kernel::BlockTable> SmallBlocks() {
  auto blocks = std::make_unique<pagelane::kernel::BlockTable>(kPageBits);
  blocks->Add("a", 40 * kPageBytes);
  blocks->Add("pc.bios", 2 * kPageBytes);
  return blocks;
}

/// Output is written up to this many bytes; a batch that needs more must be refused for it.
inline constexpr std::size_t kOutputBytesMax = 64 * 1024;

/// Slots of the page store. They end with a page of the processor, and the guard behind it.
inline constexpr std::uint32_t kSlots = 8;
inline constexpr std::size_t kStoreBytes = kSlots * kPageBytes;

/// Completes the batch that a builder sealed in `slot`; nothing if there is no memory.
inline std::vector<std::uint8_t> Encode(std::span<std::uint8_t> slot,
                                        const pagelane::kernel::SealedBatch& sealed,
                                        const pagelane::kernel::EncodeOptions& options,
                                        pagelane::kernel::Scratch& scratch) {
  using namespace pagelane::kernel;
  Check(sealed.end <= slot.size(), "the batch is in its slot");
  std::vector<std::uint8_t> out(options.codec == Codec::kNone ? 0 : slot.size());
  EncodedBatch encoded;
  const Fault fault =
      EncodeBatch(slot, sealed.start, sealed.end, options, out.data(), scratch, &encoded);
  Check(!fault || allocation_failed, "a sealed batch is encoded");
  if (fault) {
    return {};
  }
  const std::uint8_t* bytes = encoded.is_in_out ? out.data() : slot.data();
  return {bytes + encoded.start, bytes + encoded.end};
}

/// The destination of a stream: takes batches from the wire, one after another.
class Destination {
 public:
  explicit Destination(std::unique_ptr<pagelane::kernel::BlockTable> blocks = VastBlocks())
      : blocks_(std::move(blocks)), hashed_(SmallBlocks()), store_(kPageBits, kSlots) {}

  /// Begins a stream: with a store that has these bytes, with one of zeros, or without one; with a
  /// store, hashes of pages are noted as well.
  void Begin(bool has_footer, bool has_store, std::span<const std::uint8_t> stored = {}) {
    has_footer_ = has_footer;
    has_store_ = has_store && store_.is_usable();
    Check(store_.is_usable() || allocation_failed, "memory for a store");
    hashes_.reset();
    if (has_store_) {
      hashes_.emplace(*hashed_);
      Check(hashes_->is_usable() || allocation_failed, "memory for hashes");
      std::fill_n(store_.At(0), kStoreBytes, std::uint8_t{0});
      std::copy(stored.begin(), stored.end(), store_.At(0));
    }
    output_.reset();
    decoded_ = {};
  }

  /// Inspects and decodes a batch, and checks what must hold of both.
  pagelane::kernel::Fault Take(std::span<const std::uint8_t> batch) {
    using namespace pagelane::kernel;
    DecodedBatch inspected;
    Check(bool(InspectHead(Ends(), batch, kPayloadBytesMax + 1 + batch.size(), &inspected)),
          "a batch longer than a payload is refused");
    inspected = {};
    const Fault fault = Inspect(batch, &inspected);
    Check(fault || inspected.output_bytes <= 8 * kPayloadBytesMax, "output is bounded");
    Check(fault.code != FaultCode::kNoMemory || allocation_failed, "inspecting takes no memory");

    // Exactly as many bytes as are needed: a sanitizer then sees every byte written past them.
    const bool is_long = inspected.output_bytes > kOutputBytesMax;
    const std::size_t room = fault || is_long ? 64 : inspected.output_bytes;
    output_.reset(new std::uint8_t[room]);
    decoded_ = {};
    stored_.assign(stored().begin(), stored().end());
    const Fault refused = DecodeBatch(Ends(), batch, {output_.get(), room}, scratch_, &decoded_);
    Check(!fault || refused, "what inspection refuses, decoding refuses");
    Check(!is_long || refused, "what does not fit is refused");
    Check(refused.code != FaultCode::kNoMemory || allocation_failed, "memory is there");
    Check(!refused || std::equal(stored_.begin(), stored_.end(), stored().begin()),
          "what is refused is not kept");
    if (!refused) {
      CheckPlan(inspected);
    }
    return refused;
  }

  /// Inspects a batch, which must be whole.
  pagelane::kernel::Fault Inspect(std::span<const std::uint8_t> batch,
                                  pagelane::kernel::DecodedBatch* inspected) const {
    return pagelane::kernel::InspectHead(Ends(), batch, batch.size(), inspected);
  }

  const pagelane::kernel::DecodedBatch& decoded() const { return decoded_; }
  std::span<const std::uint8_t> output() const {
    return {output_.get(), static_cast<std::size_t>(decoded_.output_bytes)};
  }
  const pagelane::kernel::BlockTable& blocks() const { return *blocks_; }
  bool has_footer() const { return has_footer_; }
  /// Pages that were kept; nothing without a store.
  std::span<const std::uint8_t> stored() const {
    return {store_.At(0), has_store_ ? kStoreBytes : 0};
  }

 private:
  pagelane::kernel::Target Ends() const {
    pagelane::kernel::Target target;
    target.blocks = blocks_.get();
    target.store = has_store_ ? &store_ : nullptr;
    target.hashes = hashes_ && hashes_->is_usable() ? &*hashes_ : nullptr;
    target.has_footer = has_footer_;
    target.section_id = kSectionId;
    return target;
  }

  void CheckPlan(const pagelane::kernel::DecodedBatch& inspected) const {
    const auto end = static_cast<std::int64_t>(decoded_.output_bytes);
    Check(decoded_.output_bytes == inspected.output_bytes, "sizes agree");
    Check(decoded_.pages == inspected.pages && decoded_.zero_pages == inspected.zero_pages &&
              decoded_.same_pages == inspected.same_pages,
          "counts agree");
    Check(decoded_.last_record_end <= end && decoded_.last_record <= decoded_.last_record_end &&
              decoded_.first_record <= decoded_.last_record,
          "records are in the output");
  }

  std::unique_ptr<pagelane::kernel::BlockTable> blocks_;
  std::unique_ptr<pagelane::kernel::BlockTable> hashed_;
  mutable pagelane::kernel::PageStore store_;
  mutable std::optional<pagelane::kernel::PageHashes> hashes_;
  bool has_store_ = false;
  bool has_footer_ = false;
  pagelane::kernel::Scratch scratch_;
  std::vector<std::uint8_t> stored_;  // before the batch
  std::unique_ptr<std::uint8_t[]> output_;
  pagelane::kernel::DecodedBatch decoded_;
};
