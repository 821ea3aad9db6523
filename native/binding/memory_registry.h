#pragma once

#include <cstdint>
#include <memory>

#include "kernel/guest_memory.h"

namespace pagelane::binding {

/// Guest memory that a script object holds; jobs and views hold the memory alone.
struct HeldMemory {
  std::shared_ptr<kernel::GuestMemory> memory;
  std::uint64_t id;
};

/// Gives memory a number by which all threads of the process find it.
///
/// Numbers are random, from 1 to 2^53 - 1: one of another process is not taken for one of ours.
std::shared_ptr<const HeldMemory> HoldMemory(std::shared_ptr<kernel::GuestMemory> memory);

/// Null if there is none of that number, or no script object holds it any more.
std::shared_ptr<const HeldMemory> FindMemory(std::uint64_t id);

}  // namespace pagelane::binding
