#include "kernel/page_hashes.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <mutex>

#include "kernel/batch_digest.h"
#include "kernel/batch_format.h"
#include "kernel/limits.h"

namespace pagelane::kernel {

namespace {

/// Beside the number of a batch, counted from 1.
constexpr std::uint32_t kUnknown = std::uint32_t{1} << 31;
static_assert(kBatchNumberMax + 1 < kUnknown);

/// Reads all of `bytes`. Returns 0, an errno or kFileEnded.
int ReadAt(int file, std::uint64_t offset, std::span<std::uint8_t> bytes) noexcept {
  std::size_t at = 0;
  while (at < bytes.size()) {
    const ssize_t count = pread(file, bytes.data() + at, bytes.size() - at,
                                static_cast<off_t>(offset + at));
    if (count == 0) {
      return kFileEnded;
    }
    if (count < 0 && errno != EINTR) {
      return errno;
    }
    at += count < 0 ? 0 : static_cast<std::size_t>(count);
  }
  return 0;
}

}  // namespace

void PageHashes::Free::operator()(void* memory) const noexcept {
  std::free(memory);
}

PageHashes::PageHashes(const BlockTable& blocks)
    : page_bytes_(static_cast<std::size_t>(blocks.page_bytes())) {
  const std::vector<std::uint8_t> zeros(page_bytes_);
  zero_hash_ = BatchDigest::HashOf(zeros.data(), page_bytes_);
  if (!numbers_.Reset(blocks)) {
    return;
  }
  for (std::size_t i = 0; i < blocks.count(); i++) {
    // calloc hands out untouched zero pages for large sizes, and costs no time there.
    void* hashes = std::calloc(blocks.at(i).page_count + 1, sizeof(std::uint64_t));
    if (hashes == nullptr) {
      return;
    }
    hashes_.emplace_back(static_cast<std::uint64_t*>(hashes));
  }
  is_usable_ = true;
}

void PageHashes::Note(std::span<const std::uint8_t> map, std::uint32_t number,
                      const std::uint64_t* hashes) noexcept {
  const std::lock_guard lock(mutex_);
  for (std::size_t at = 0; at < map.size(); at += kMapEntryBytes) {
    const MapEntry entry = MapEntry::Load(map.data() + at);
    if (!IsPageKind(entry.kind)) {
      continue;
    }
    const bool is_zero = entry.kind == EntryKind::kZero || entry.kind == EntryKind::kBlank;
    const bool is_foreign = IsForeignKind(entry.kind);
    const std::uint32_t mark = (number + 1) | (is_foreign ? kUnknown : 0);
    for (std::uint32_t index = 0; index < entry.count; index++) {
      const std::uint64_t hash = is_zero || is_foreign ? zero_hash_ : *hashes++;
      NotePage(entry.block, entry.first_page + index, mark, hash);
    }
  }
}

void PageHashes::NotePage(std::size_t block, std::uint64_t page, std::uint32_t mark,
                          std::uint64_t hash) noexcept {
  if (!Has(block, page)) {
    return;
  }
  std::uint32_t& noted = numbers_.At(block, page);
  // Batches of several epochs may be decoded at once; QEMU gets them in the order of their numbers.
  if ((mark & ~kUnknown) < (noted & ~kUnknown)) {
    return;
  }
  noted = mark;
  hashes_[block][page] = hash;
}

void PageHashes::Compare(std::size_t block, std::uint64_t first_page,
                         std::span<const std::uint8_t> pages,
                         Comparison* comparison) const noexcept {
  const std::shared_lock lock(mutex_);
  for (std::size_t at = 0; at < pages.size(); at += page_bytes_) {
    const std::uint64_t page = first_page + at / page_bytes_;
    const std::uint32_t noted = numbers_.At(block, page);
    if (noted == 0 || (noted & kUnknown) != 0) {
      comparison->unknown++;
      continue;
    }
    comparison->pages++;
    if (BatchDigest::HashOf(pages.data() + at, page_bytes_) == hashes_[block][page]) {
      continue;
    }
    if (comparison->differing++ == 0) {
      comparison->first_differing = page;
    }
  }
}

Comparison CompareFile(const PageHashes& hashes, int file, std::size_t block,
                       std::uint64_t first_page, std::uint64_t page_count,
                       std::span<std::uint8_t> buffer) noexcept {
  Comparison comparison;
  const std::size_t page_bytes = hashes.page_bytes();
  const std::uint64_t pages_at_once = buffer.size() / page_bytes;
  for (std::uint64_t done = 0; done < page_count;) {
    const std::uint64_t count = std::min(pages_at_once, page_count - done);
    const std::span<std::uint8_t> pages =
        buffer.first(static_cast<std::size_t>(count) * page_bytes);
    comparison.error = ReadAt(file, (first_page + done) * page_bytes, pages);
    if (comparison.error != 0) {
      break;
    }
    hashes.Compare(block, first_page + done, pages, &comparison);
    done += count;
  }
  return comparison;
}

}  // namespace pagelane::kernel
