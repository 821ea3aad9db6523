#pragma once

#include <cstdint>
#include <memory>

#include "kernel/guest_memory.h"

namespace pagelane::binding {

/// Guest memory by number, for all threads of the process; it keeps none of it alive.
///
/// Numbers are random, from 1 to 2^53 - 1: one of another process is not taken for one of ours.
std::uint64_t RegisterMemory(const std::shared_ptr<kernel::GuestMemory>& memory);

/// Null if there is none of that number, or nobody holds it any more.
std::shared_ptr<kernel::GuestMemory> FindMemory(std::uint64_t id);

}  // namespace pagelane::binding
