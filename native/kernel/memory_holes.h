#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernel/guest_memory.h"

namespace pagelane::kernel {

/// Sets the bit of every page of a block that may hold something, lowest bit first. Pages without
/// a bit read as zeros; no page is made for the question.
///
/// The file is asked for its holes, once from end to end: to find where data ends, a file system
/// walks all of it, so asking piece by piece would take the square of the time. hugetlbfs calls
/// all of a file data: there the count of its blocks may tell that none or all is used, and else
/// host pages are read through the descriptor, which makes none. A buffer has no holes. What is
/// written meanwhile may be missed.
///
/// words:   a bit for every page at least.
/// Returns: 0, or why the file could not be read (errno).
int FindPopulated(const GuestMemory& memory, std::size_t block,
                  std::span<std::uint32_t> words) noexcept;

/// Finds the first byte of a block from `begin` on that is in no hole of its file; the block's size
/// if there is none. Returns 0 or errno.
int FindData(const GuestMemory& memory, std::size_t block, std::uint64_t begin,
             std::uint64_t* data) noexcept;

/// Makes pages read as zeros and gives their memory back where that is possible: whole host pages
/// of files. The block is writable, and has the pages.
///
/// Returns: 0, or why the system refuses (errno).
int PunchPages(const GuestMemory& memory, std::size_t block, std::uint64_t first_page,
               std::uint64_t page_count) noexcept;

}  // namespace pagelane::kernel
