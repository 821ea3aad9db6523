#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <vector>

#include "kernel/mapping_guard.h"

namespace pagelane::kernel {

/// A RAM block as it lies in this process.
struct MemoryBlock {
  std::uint8_t* bytes;
  std::uint64_t byte_count;
  bool is_writable;
  int file;  // -1: a buffer
  std::uint64_t file_offset;
  /// What the host's kernel gives and takes at a time; for a buffer the guest's page.
  std::uint64_t host_page_bytes;
};

/// Where a block is to come from.
struct BlockSource {
  std::uint8_t* buffer;  // null: from `file`
  int file;
  std::uint64_t file_offset;
  std::uint64_t byte_count;
};

enum class MemoryStep : std::uint8_t {
  kNone,
  kFile,     // not a regular file, or it cannot be looked at
  kSize,     // the size is 0, or no multiple of `wanted`
  kOffset,   // the offset is no multiple of `wanted`
  kShort,    // the file has `wanted` bytes
  kOverlap,  // another block has some of it
  kMap,      // the system refuses to map it
};

/// Why memory was not mapped.
struct MemoryFault {
  MemoryStep step = MemoryStep::kNone;
  std::size_t block = 0;
  int error = 0;
  std::uint64_t wanted = 0;
};

/// RAM blocks of a guest, mapped here.
///
/// Does not change once it is made, but for `is_lost`. Jobs and handles share it, and the last to
/// let go of it unmaps it. Who may use a buffer's memory is known to whoever gave the buffer.
class GuestMemory {
 public:
  /// Maps the blocks: files shared, so that what anybody writes is seen by all.
  ///
  /// Returns: null, with `fault` set, if a block cannot be had; then nothing is mapped.
  static std::shared_ptr<GuestMemory> Map(std::span<const BlockSource> sources,
                                          std::uint32_t page_bits, bool is_writable,
                                          MemoryFault* fault);
  ~GuestMemory();
  GuestMemory(const GuestMemory&) = delete;
  GuestMemory& operator=(const GuestMemory&) = delete;

  std::uint32_t page_bits() const noexcept { return page_bits_; }
  std::uint64_t page_bytes() const noexcept { return std::uint64_t{1} << page_bits_; }
  std::size_t block_count() const noexcept { return blocks_.size(); }
  const MemoryBlock& block(std::size_t index) const noexcept { return blocks_[index]; }
  std::uint64_t PageCount(std::size_t block) const noexcept {
    return blocks_[block].byte_count >> page_bits_;
  }
  std::uint8_t* At(std::size_t block, std::uint64_t page) const noexcept {
    return blocks_[block].bytes + (page << page_bits_);
  }

  /// A mapped file was truncated under us, or its file system is full: what was read since is not
  /// to be trusted, what was written since may be gone. Asked after memory was used.
  bool is_lost() const noexcept { return is_lost_.load(); }

  /// Looks whether a file is shorter than its block; `is_lost` says so from then on.
  void LookForLoss() const noexcept;

  /// What is to be set when a mapping of these blocks loses a page.
  std::atomic<bool>* loss() const noexcept { return &is_lost_; }

 private:
  explicit GuestMemory(std::uint32_t page_bits) noexcept : page_bits_(page_bits) {}
  MemoryFault Add(std::size_t index, const BlockSource& source, bool is_writable);
  MemoryFault AddFile(std::size_t index, const BlockSource& source, bool is_writable);

  const std::uint32_t page_bits_;
  mutable std::atomic<bool> is_lost_{false};
  std::vector<MemoryBlock> blocks_;
  std::deque<MappingGuard> guards_;
};

}  // namespace pagelane::kernel
