#pragma once

#include <napi.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "binding/arguments.h"
#include "kernel/batch.h"
#include "kernel/store_index.h"

namespace pagelane::binding {

/// Reads the fields of `Order` in src/native.ts; `order` has kOrderCount of them.
kernel::EncodeOptions ReadOrder(Arguments& arguments,
                                std::span<const std::int32_t> order) noexcept;

/// The index of the StoreIndex that an argument is; null if it is undefined, or wrong.
std::shared_ptr<kernel::StoreIndex> ReadStore(Arguments& arguments, std::size_t index) noexcept;

/// Requires room for the compressed form of `slot`'s first `end` bytes.
void RequireOut(Arguments& arguments, std::span<const std::uint8_t> slot, std::size_t end,
                std::span<const std::uint8_t> out) noexcept;

/// Whether two arrays have bytes in common.
bool Overlap(std::span<const std::uint8_t> a, std::span<const std::uint8_t> b) noexcept;

/// Writes into a pinned array at the end of a task. The script may have detached it meanwhile; it
/// then gets nothing.
template <typename Write>
void WriteLate(napi_env env, napi_value array, std::size_t count, Write write) noexcept {
  void* data = nullptr;
  std::size_t length = 0;
  if (array != nullptr && LookAtArray(env, array, napi_int32_array, &data, &length) &&
      length >= count) {
    write(std::span(static_cast<std::int32_t*>(data), length));
  }
}

}  // namespace pagelane::binding
