#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "support.h"

/// An entry of the map with what it takes of the literals.
struct EntryParts {
  pagelane::kernel::MapEntry entry;
  std::vector<std::uint32_t> references;
  std::vector<std::uint8_t> contents;
};

/// A batch taken apart: what mutators change.
struct BatchParts {
  std::vector<std::uint8_t> header;  // kBatchHeaderBytes
  std::vector<EntryParts> entries;
  pagelane::kernel::Codec codec = pagelane::kernel::Codec::kNone;
};

/// Takes a batch apart. False if its sizes do not fit or its literals are not what they should be.
///
/// stored: what the receiver keeps before it takes the batch.
bool TakeApart(std::span<const std::uint8_t> batch, std::span<const std::uint8_t> stored,
               BatchParts* parts);

/// Puts a batch together: every entry gets the references and contents that it takes, and sizes and
/// counts are those of the map.
std::vector<std::uint8_t> PutTogether(const BatchParts& parts,
                                      std::span<const std::uint8_t> stored);

/// Gives a batch the checksum that it should have, if nothing else is wrong with it. The
/// destination must be where it is before it takes the batch.
///
/// The decoder says which one it wanted, and that is believed.
void MendChecksum(std::span<std::uint8_t> batch, Destination& destination);
