#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "kernel/block_table.h"

// What every target here defines.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

/// Valid inputs for the driver's mutations to begin with; each target defines its own.
std::vector<std::vector<std::uint8_t>> Seeds();

/// Ends the process if what must hold does not, in every build.
inline void Check(bool holds, const char* what) {
  if (!holds) {
    std::fprintf(stderr, "does not hold: %s\n", what);
    std::abort();
  }
}

/// Two blocks of pages of 1 KiB: 40 pages, and 2.
inline std::unique_ptr<pagelane::kernel::BlockTable> SmallBlocks() {
  auto blocks = std::make_unique<pagelane::kernel::BlockTable>(10);
  blocks->Add("a", 40 * 1024);
  blocks->Add("pc.bios", 2 * 1024);
  return blocks;
}
