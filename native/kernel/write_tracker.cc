#include "kernel/write_tracker.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "kernel/memory_holes.h"
#include "kernel/page_bits.h"
#include "kernel/pagemap_scan.h"

namespace pagelane::kernel {

namespace {

/* Chosen by us */
/// Regions that a scan returns at a time; on the stack.
constexpr std::size_t kRegionsMax = 512;
/// Bytes that are protected together if a page of them is populated: those of a page table of
/// 4 KiB pages on x86-64 and arm64. With others, more may count as written once.
constexpr std::uint64_t kTableBytes = 2 * 1024 * 1024;

std::uint64_t AddressOf(const std::uint8_t* bytes) noexcept {
  return reinterpret_cast<std::uintptr_t>(bytes);
}

/// Scans from `start` on for pages that were written, and protects them. Returns how many regions,
/// or -1 with errno.
int Scan(int pagemap, std::uint64_t start, std::uint64_t end, std::span<PageRegion> regions,
         std::uint64_t* walk_end) noexcept {
  PagemapScan scan = {};
  scan.size = sizeof scan;
  scan.flags = kScanProtectMatching | kScanCheckAsync;
  scan.start = start;
  scan.end = end;
  scan.vec = reinterpret_cast<std::uintptr_t>(regions.data());
  scan.vec_len = regions.size();
  scan.category_mask = kPageIsWritten;
  scan.return_mask = kPageIsWritten;
  const int count = ioctl(pagemap, kPagemapScan, &scan);
  *walk_end = scan.walk_end;
  return count;
}

std::uint64_t RoundDown(std::uint64_t value, std::uint64_t unit) noexcept {
  return value / unit * unit;
}

std::uint64_t RoundUp(std::uint64_t value, std::uint64_t unit) noexcept {
  return (value + unit - 1) / unit * unit;
}

}  // namespace

WriteTracker::WriteTracker(std::shared_ptr<GuestMemory> memory) noexcept
    : memory_(std::move(memory)) {}

std::unique_ptr<WriteTracker> WriteTracker::Make(std::shared_ptr<GuestMemory> memory,
                                                 TrackerFault* fault) {
  std::unique_ptr<WriteTracker> tracker(new WriteTracker(std::move(memory)));
  *fault = tracker->Open();
  return fault->step == TrackerStep::kNone ? std::move(tracker) : nullptr;
}

WriteTracker::~WriteTracker() {
  // Whoever closes the last descriptor of a userfaultfd takes its protection off.
  if (faults_ >= 0) {
    close(faults_);
  }
  if (pagemap_ >= 0) {
    close(pagemap_);
  }
}

TrackerFault WriteTracker::Open() {
  for (std::size_t i = 0; i < memory_->block_count(); i++) {
    if (memory_->block(i).file < 0) {
      return {TrackerStep::kBuffer, i, 0};
    }
    if (!memory_->block(i).is_writable) {
      return {TrackerStep::kReadOnly, i, 0};
    }
  }
  // Nobody asks this descriptor for faults, so those of the kernel's own need none either: this
  // is what a process without rights may have.
  faults_ = static_cast<int>(
      syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY));
  if (faults_ < 0) {
    return {TrackerStep::kOpen, 0, errno};
  }
  uffdio_api api = {};
  api.api = UFFD_API;
  api.features = kFeatureWpAsync | kFeatureWpUnpopulated | UFFD_FEATURE_WP_HUGETLBFS_SHMEM;
  if (ioctl(faults_, UFFDIO_API, &api) != 0) {
    return {TrackerStep::kFeatures, 0, errno};
  }
  pagemap_ = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
  if (pagemap_ < 0) {
    return {TrackerStep::kScan, 0, errno};
  }
  return Register();
}

TrackerFault WriteTracker::Register() {
  for (std::size_t i = 0; i < memory_->block_count(); i++) {
    const MemoryBlock& block = memory_->block(i);
    const std::uint64_t unit = block.host_page_bytes;
    uffdio_register registration = {};
    registration.range.start = AddressOf(block.bytes);
    registration.range.len = RoundUp(block.byte_count, unit);
    registration.mode = UFFDIO_REGISTER_MODE_WP;
    if (ioctl(faults_, UFFDIO_REGISTER, &registration) != 0) {
      return {TrackerStep::kRegister, i, errno};
    }
    const std::uint64_t start = registration.range.start;
    // One more than fit, as the first may begin in the middle of its table.
    known_.emplace_back(registration.range.len / TableBytes(i) + 2);
    PageRegion region;
    std::uint64_t walk_end = 0;
    if (Scan(pagemap_, start, start + unit, {&region, 1}, &walk_end) < 0) {
      return {TrackerStep::kScan, i, errno};
    }
  }
  return {};
}

/// Bytes that are protected together. Huge pages begin at multiples of their size.
std::uint64_t WriteTracker::TableBytes(std::size_t block) const noexcept {
  return std::max(memory_->block(block).host_page_bytes, kTableBytes);
}

std::atomic<bool>& WriteTracker::KnownAt(std::size_t block,
                                         std::uint64_t address) const noexcept {
  const std::uint64_t unit = TableBytes(block);
  return known_[block][address / unit - AddressOf(memory_->block(block).bytes) / unit];
}

/// begin, end: addresses, of whole host pages.
int WriteTracker::ProtectBytes(std::uint64_t begin, std::uint64_t end) const noexcept {
  uffdio_writeprotect protection = {};
  protection.range.start = begin;
  protection.range.len = end - begin;
  protection.mode = UFFDIO_WRITEPROTECT_MODE_WP;
  while (ioctl(faults_, UFFDIO_WRITEPROTECT, &protection) != 0) {
    if (errno != EAGAIN) {
      return errno;
    }
  }
  return 0;
}

int WriteTracker::Protect(std::size_t block, std::uint64_t first_page,
                          std::uint64_t page_count) const noexcept {
  const MemoryBlock& found = memory_->block(block);
  const std::uint64_t unit = TableBytes(block);
  const std::uint64_t base = AddressOf(found.bytes);
  const std::uint64_t page_end = first_page + page_count;
  const std::uint64_t end =
      base + RoundUp(page_end << memory_->page_bits(), found.host_page_bytes);
  for (std::uint64_t at = base + (first_page << memory_->page_bits()); at < end;) {
    std::uint64_t data = 0;
    if (const int error = FindData(*memory_, block, at - base, &data); error != 0) {
      return error;
    }
    at = std::max(at, RoundDown(base + data, unit));
    if (at >= end || data >= found.byte_count) {
      return 0;
    }
    const std::uint64_t next = std::min(RoundDown(at, unit) + unit, end);
    if (const int error = ProtectBytes(at, next); error != 0) {
      return error;
    }
    Know(block, at, next);
    at = next;
  }
  return 0;
}

void WriteTracker::Know(std::size_t block, std::uint64_t begin, std::uint64_t end) const noexcept {
  const std::uint64_t unit = TableBytes(block);
  for (std::uint64_t at = begin; at < end; at = RoundDown(at, unit) + unit) {
    KnownAt(block, at).store(true, std::memory_order_relaxed);
  }
}

/// Where a run of tables ends that are known, from `begin` on.
std::uint64_t WriteTracker::KnownEnd(std::size_t block, std::uint64_t begin,
                                     std::uint64_t end) const noexcept {
  const std::uint64_t unit = TableBytes(block);
  std::uint64_t at = begin;
  while (at < end && KnownAt(block, at).load(std::memory_order_relaxed)) {
    at = RoundDown(at, unit) + unit;
  }
  return std::min(at, end);
}

/// Sets the bits of pages between two bytes of a block that are in no hole, page by page: where
/// data ends is not asked, as the file might be walked to its end for it.
int WriteTracker::NoteData(std::size_t block, std::uint64_t begin, std::uint64_t end,
                           std::span<std::uint32_t> words) const noexcept {
  const std::uint64_t unit = memory_->block(block).host_page_bytes;
  for (std::uint64_t at = begin; at < end;) {
    std::uint64_t data = 0;
    if (const int error = FindData(*memory_, block, at, &data); error != 0 || data >= end) {
      return error;
    }
    at = std::min(RoundDown(data, unit) + unit, end);
    SetBits(words, data >> memory_->page_bits(), ((at - 1) >> memory_->page_bits()) + 1);
  }
  return 0;
}

/// Scans between two addresses of a block.
int WriteTracker::CollectBytes(std::size_t block, std::uint64_t begin, std::uint64_t end,
                               bool is_known, std::span<std::uint32_t> words) const noexcept {
  const std::uint64_t base = AddressOf(memory_->block(block).bytes);
  const std::uint64_t page_count = memory_->PageCount(block);
  const std::uint32_t page_bits = memory_->page_bits();
  for (std::uint64_t at = begin; at < end;) {
    PageRegion regions[kRegionsMax];
    std::uint64_t walk_end = 0;
    const int count = Scan(pagemap_, at, end, regions, &walk_end);
    if (count < 0) {
      return errno;
    }
    for (int i = 0; i < count; i++) {
      const std::uint64_t first = (regions[i].start - base) >> page_bits;
      const std::uint64_t behind =
          std::min(((regions[i].end - base - 1) >> page_bits) + 1, page_count);
      if (is_known) {
        SetBits(words, first, behind);
      } else if (const int error = NoteData(block, first << page_bits, behind << page_bits,
                                            words);
                 error != 0) {
        return error;
      }
    }
    if (walk_end <= at) {
      return EIO;  // a scan that does not get on would not end
    }
    at = walk_end;
  }
  return 0;
}

int WriteTracker::Collect(std::size_t block, std::uint64_t first_page, std::uint64_t page_count,
                          std::span<std::uint32_t> words) const noexcept {
  const MemoryBlock& found = memory_->block(block);
  const std::uint64_t unit = TableBytes(block);
  const std::uint64_t base = AddressOf(found.bytes);
  const std::uint64_t page_end = first_page + page_count;
  const std::uint64_t end =
      base + RoundUp(page_end << memory_->page_bits(), found.host_page_bytes);
  for (std::uint64_t at = base + (first_page << memory_->page_bits()); at < end;) {
    const std::uint64_t known_end = KnownEnd(block, at, end);
    if (at < known_end) {
      if (const int error = CollectBytes(block, at, known_end, true, words); error != 0) {
        return error;
      }
      at = known_end;
      continue;
    }
    // A scan would make page tables for all holes. What was written is no hole any more.
    std::uint64_t data = 0;
    if (const int error = FindData(*memory_, block, at - base, &data); error != 0) {
      return error;
    }
    at = std::max(at, RoundDown(base + data, unit));
    if (at >= end || data >= found.byte_count) {
      return 0;
    }
    if (KnownAt(block, at).load(std::memory_order_relaxed)) {
      continue;
    }
    const std::uint64_t next = std::min(RoundDown(at, unit) + unit, end);
    if (const int error = CollectBytes(block, at, next, false, words); error != 0) {
      return error;
    }
    Know(block, at, next);
    at = next;
  }
  return 0;
}

}  // namespace pagelane::kernel
