#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

/// A batch as it is sent, with a name for its seed.
struct NamedBatch {
  std::string name;
  std::vector<std::uint8_t> bytes;
};

/// What a store holds that a few batches have filled.
std::span<const std::uint8_t> SampleStore();

/// Batches with everything that there is in a batch, by every codec. They refer to `SampleStore()`.
std::vector<NamedBatch> SampleBatches();

/// Batches one after the other: a later one refers to what an earlier one had kept in an empty
/// store.
std::vector<std::vector<std::uint8_t>> SampleRow(std::uint8_t codec);
