#pragma once

#include <cstddef>
#include <cstdint>

#include "support.h"

// Of libFuzzer: changes bytes as it would without a mutator of the target's own.
extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t bytes,
                                        std::size_t bytes_max);

/// Changes a batch in place, mostly to one that passes its own checks.
///
/// destination: where it is before it takes the batch.
/// Returns:     its new size, at most `bytes_max`.
std::size_t MutateBatch(std::uint8_t* batch, std::size_t bytes, std::size_t bytes_max,
                        unsigned seed, Destination& destination);
