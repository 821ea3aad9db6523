#pragma once

#include <cstdint>
#include <span>

#include "kernel/batch.h"
#include "kernel/memory_target.h"
#include "kernel/scratch.h"

namespace pagelane::kernel {

/// Writes the pages of a batch from the wire to guest memory, and keeps what it says in the store.
///
/// Pages go from where they were decompressed, or from the wire, straight to their place.
///
/// Promise: checks all that InspectHead does, and the checksum of all pages, before the first of
///          them is written or kept: a batch with a fault changes nothing. Records of QEMU's own
///          encodings are a fault.
Fault ApplyBatch(const Target& target, MemoryTarget& memory, std::span<const std::uint8_t> batch,
                 Scratch& scratch, DecodedBatch* decoded) noexcept;

}  // namespace pagelane::kernel
