#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "kernel/guest_memory.h"

namespace pagelane::kernel {

enum class TrackerStep : std::uint8_t {
  kNone,
  kReadOnly,   // nothing can be written through the mapping of `block`
  kBuffer,     // `block` is a buffer: its pages are the engine's as well
  kOpen,       // no userfaultfd is given
  kFeatures,   // the kernel has no asynchronous write protection: it came with Linux 6.7
  kRegister,   // the mapping of `block` cannot be registered; EBUSY: another userfaultfd has it
  kScan,       // /proc/self/pagemap cannot be opened or scanned
};

/// Why writes cannot be tracked.
struct TrackerFault {
  TrackerStep step = TrackerStep::kNone;
  std::size_t block = 0;
  int error = 0;
};

/// Says which pages of guest memory were written through its mapping in this process.
///
/// The kernel protects pages against writing; the first write to each takes a fault that it
/// settles by itself, without a message to anybody, and which leaves a mark. A scan reads the marks
/// and protects again in one step, so that no write falls between. What other processes write, and
/// what is punched, leaves no mark. Any thread may call anything, for pages of its own.
class WriteTracker {
 public:
  /// Null, with `fault` set, if it cannot be done here; then nothing has changed.
  static std::unique_ptr<WriteTracker> Make(std::shared_ptr<GuestMemory> memory,
                                            TrackerFault* fault);
  /// Takes all protection off.
  ~WriteTracker();
  WriteTracker(const WriteTracker&) = delete;
  WriteTracker& operator=(const WriteTracker&) = delete;

  const GuestMemory& memory() const noexcept { return *memory_; }

  /// Protects what is no hole of its file, and what shares its page tables. The first page is a
  /// multiple of 32, and begins a host page.
  ///
  /// Pages that are not protected count as written once they are mapped, by a read as well; nothing
  /// is taken for them until then, however many there are.
  /// Returns: 0 or errno.
  int Protect(std::size_t block, std::uint64_t first_page,
              std::uint64_t page_count) const noexcept;

  /// Sets the bits of what was written since it was protected, and protects it anew. The first
  /// page is a multiple of 32, and begins a host page.
  ///
  /// Where a page table is new, all of it counts as written; holes of the file are left out there.
  /// words:   of the block, as above; others may change the words of other pages meanwhile.
  /// Returns: 0 or errno; then the bits of some pages are set.
  int Collect(std::size_t block, std::uint64_t first_page, std::uint64_t page_count,
              std::span<std::uint32_t> words) const noexcept;

 private:
  explicit WriteTracker(std::shared_ptr<GuestMemory> memory) noexcept;
  TrackerFault Open();
  TrackerFault Register();
  int ProtectBytes(std::uint64_t begin, std::uint64_t end) const noexcept;
  int NoteData(std::size_t block, std::uint64_t begin, std::uint64_t end,
               std::span<std::uint32_t> words) const noexcept;
  int CollectBytes(std::size_t block, std::uint64_t begin, std::uint64_t end, bool is_known,
                   std::span<std::uint32_t> words) const noexcept;
  std::uint64_t TableBytes(std::size_t block) const noexcept;
  std::atomic<bool>& KnownAt(std::size_t block, std::uint64_t address) const noexcept;
  std::uint64_t KnownEnd(std::size_t block, std::uint64_t begin,
                         std::uint64_t end) const noexcept;
  void Know(std::size_t block, std::uint64_t begin, std::uint64_t end) const noexcept;

  const std::shared_ptr<GuestMemory> memory_;
  /// Of each block: whether what it has of a page table was protected once. Beside pages that were
  /// written no page of such a table counts as written but those that lost their mark with memory.
  mutable std::vector<std::vector<std::atomic<bool>>> known_;
  int faults_ = -1;   // the userfaultfd
  int pagemap_ = -1;  // /proc/self/pagemap
};

}  // namespace pagelane::kernel
