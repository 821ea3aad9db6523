#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace pagelane::kernel {

/// Bytes that are mapped from a file.
struct FileMapping {
  std::uint8_t* bytes;
  std::uint64_t byte_count;
  std::uint64_t host_page_bytes;
  int file;
  std::uint64_t file_offset;
};

/// Keeps the process alive when a page of a mapping cannot be had: the file was truncated, or its
/// file system is full.
///
/// Whoever touches such a page finds zeros in memory of the process's own, and `is_lost` is true
/// from then on. Any other SIGBUS takes the way it took before, broken memory included. The
/// handler is put in at the first guard and stays; who replaces it later takes the promise away.
class MappingGuard {
 public:
  /// is_lost: lives as long as the guard. The mapping may be touched from now on.
  MappingGuard(const FileMapping& mapping, std::atomic<bool>* is_lost) noexcept;
  /// Nobody touches the mapping any more.
  ~MappingGuard();
  MappingGuard(const MappingGuard&) = delete;
  MappingGuard& operator=(const MappingGuard&) = delete;

 private:
  struct Entry;
  Entry* entry_;

  friend struct GuardedMappings;
};

}  // namespace pagelane::kernel
