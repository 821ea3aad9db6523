#pragma once

#include <napi.h>

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernel/batch.h"
#include "kernel/batch_builder.h"

namespace pagelane::binding {

/* Fixed by src/native.ts: Order, Sealed, Encoded and Decoded; `count` of each */
inline constexpr std::size_t kOrderCount = 5;
inline constexpr std::size_t kSealedCount = 9;
inline constexpr std::size_t kEncodedCount = 9;
inline constexpr std::size_t kDecodedCount = 19;

/// Write a result into the script's array, which has at least as many elements as the name says.
void WriteSealed(const kernel::SealedBatch& sealed, std::span<std::int32_t> target) noexcept;
void WriteEncoded(const kernel::EncodedBatch& encoded, std::span<std::int32_t> target) noexcept;
void WriteDecoded(const kernel::DecodedBatch& decoded, std::span<std::int32_t> target) noexcept;

/// Makes the Error of a fault, with its `code`. task: as in "Cannot <task>: …".
napi_value MakeFaultError(napi_env env, const kernel::Fault& fault, const char* task) noexcept;

}  // namespace pagelane::binding
