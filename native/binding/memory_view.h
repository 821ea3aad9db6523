#pragma once

#include <napi.h>

#include <cstddef>
#include <memory>

#include "kernel/guest_memory.h"

namespace pagelane::binding {

/// Makes a Uint8Array over a block that is mapped from a file; it keeps the memory. Null, with an
/// exception on its way, if that cannot be done.
///
/// The script can write to any array: a view of memory that is mapped for reading is a private
/// mapping, whose pages show the file until the script writes to them.
napi_value MakeMemoryView(napi_env env, const std::shared_ptr<kernel::GuestMemory>& memory,
                          std::size_t block);

/// Takes the bytes away from a view: it is empty from now on.
void DetachView(napi_env env, napi_value view) noexcept;

}  // namespace pagelane::binding
