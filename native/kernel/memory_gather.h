#pragma once

#include <cstdint>
#include <span>

#include "kernel/batch.h"
#include "kernel/batch_builder.h"
#include "kernel/guest_memory.h"
#include "kernel/page_digests.h"
#include "kernel/scratch.h"

namespace pagelane::kernel {

/// Pages of a block that are to be sent: those from `from` to below `end` whose bit is set, page p
/// being bit p%64 of word p/64.
struct PageRange {
  std::uint16_t block = 0;
  std::uint64_t from = 0;
  std::uint64_t end = 0;
  std::span<const std::uint64_t> words;
  /// Where it is noted what was read of each page; null if nobody asks.
  PageDigests* digests = nullptr;
};

/// What came of gathering a range.
struct Gathered {
  SealedBatch sealed;
  /// Behind the last page that is in the batch: `end`, unless the slot was full before.
  std::uint64_t next = 0;
};

/// Puts pages of guest memory into a batch, up to what fits, in one pass while each is in cache:
/// zeros and repeated words as facts, others copied.
///
/// The guest may write to a page meanwhile. What is copied may then be neither its old nor its new
/// contents; the guest's dirty log has the page again, and it is sent again.
///
/// slot:    at least BatchBuilder::SlotBytesMin(); gets a sealed batch.
/// Returns: a fault if there is no memory, or if guest memory was lost before all was read: then
///          the slot holds nothing of use.
Fault GatherPages(const GuestMemory& memory, const PageRange& range,
                  std::span<std::uint8_t> slot, Scratch& scratch, Gathered* gathered) noexcept;

/// Hashes the pages of a range, one after another into `hashes`; a page whose bit is not set has
/// zeros for a hash.
///
/// secret:  kHashSecretBytes that nobody knows who could write such pages.
/// hashes:  kPageHashBytes for each page from `from` to below `end`.
/// Returns: a fault if guest memory was lost before all was read.
Fault HashPages(const GuestMemory& memory, const PageRange& range, const std::uint8_t* secret,
                Scratch& scratch, std::uint8_t* hashes) noexcept;

}  // namespace pagelane::kernel
