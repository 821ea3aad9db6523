#include "kernel/guest_memory.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <tuple>

namespace pagelane::kernel {

namespace {

/// Bytes of a block, in a space where two blocks overlap if and only if their bytes do.
struct Extent {
  bool is_file;
  std::uint64_t device;
  std::uint64_t inode;
  std::uint64_t begin;
  std::uint64_t end;
  std::size_t block;
};

Extent ExtentOf(const MemoryBlock& block, std::size_t index) noexcept {
  if (block.file < 0) {
    const auto begin = reinterpret_cast<std::uintptr_t>(block.bytes);
    return {false, 0, 0, begin, begin + block.byte_count, index};
  }
  struct stat status = {};
  fstat(block.file, &status);
  return {true,
          status.st_dev,
          status.st_ino,
          block.file_offset,
          block.file_offset + block.byte_count,
          index};
}

MemoryFault FindOverlap(const std::vector<MemoryBlock>& blocks) {
  std::vector<Extent> extents;
  for (std::size_t i = 0; i < blocks.size(); i++) {
    extents.push_back(ExtentOf(blocks[i], i));
  }
  const auto space = [](const Extent& extent) {
    return std::tie(extent.is_file, extent.device, extent.inode);
  };
  std::sort(extents.begin(), extents.end(), [&](const Extent& one, const Extent& other) {
    return std::tuple_cat(space(one), std::tie(one.begin)) <
           std::tuple_cat(space(other), std::tie(other.begin));
  });
  for (std::size_t i = 1; i < extents.size(); i++) {
    const Extent& before = extents[i - 1];
    if (space(before) == space(extents[i]) && extents[i].begin < before.end) {
      return {MemoryStep::kOverlap, std::max(before.block, extents[i].block), 0,
              std::min(before.block, extents[i].block)};
    }
  }
  return {};
}

/// A descriptor of our own: with its own position, so that looking for holes moves no other.
int Reopen(int file) noexcept {
  const int flags = fcntl(file, F_GETFL);
  if (flags < 0) {
    return -1;
  }
  char path[32];
  std::snprintf(path, sizeof path, "/proc/self/fd/%d", file);
  const int reopened = open(path, (flags & O_ACCMODE) | O_CLOEXEC);
  return reopened >= 0 ? reopened : fcntl(file, F_DUPFD_CLOEXEC, 0);
}

std::uint64_t HostPageBytes(int file) noexcept {
  struct statfs status;
  const bool is_huge = fstatfs(file, &status) == 0 &&
                       static_cast<std::uint32_t>(status.f_type) == HUGETLBFS_MAGIC;
  return static_cast<std::uint64_t>(is_huge ? status.f_bsize : sysconf(_SC_PAGESIZE));
}

}  // namespace

std::shared_ptr<GuestMemory> GuestMemory::Map(std::span<const BlockSource> sources,
                                              std::uint32_t page_bits, bool is_writable,
                                              MemoryFault* fault) {
  std::shared_ptr<GuestMemory> memory(new GuestMemory(page_bits));
  memory->blocks_.reserve(sources.size());
  for (std::size_t i = 0; i < sources.size(); i++) {
    *fault = memory->Add(i, sources[i], is_writable);
    if (fault->step != MemoryStep::kNone) {
      return nullptr;
    }
  }
  *fault = FindOverlap(memory->blocks_);
  return fault->step == MemoryStep::kNone ? memory : nullptr;
}

GuestMemory::~GuestMemory() {
  guards_.clear();
  for (const MemoryBlock& block : blocks_) {
    if (block.file >= 0) {
      munmap(block.bytes, block.byte_count);
      close(block.file);
    }
  }
}

MemoryFault GuestMemory::Add(std::size_t index, const BlockSource& source, bool is_writable) {
  if (source.buffer == nullptr) {
    return AddFile(index, source, is_writable);
  }
  if (source.byte_count == 0 || source.byte_count % page_bytes() != 0) {
    return {MemoryStep::kSize, index, 0, page_bytes()};
  }
  blocks_.push_back({source.buffer, source.byte_count, is_writable, -1, 0, page_bytes()});
  return {};
}

MemoryFault GuestMemory::AddFile(std::size_t index, const BlockSource& source,
                                 bool is_writable) {
  struct stat status;
  if (fstat(source.file, &status) != 0) {
    return {MemoryStep::kFile, index, errno, 0};
  }
  if (!S_ISREG(status.st_mode)) {
    return {MemoryStep::kFile, index, 0, 0};
  }
  const std::uint64_t host_page_bytes = HostPageBytes(source.file);
  const bool is_huge = host_page_bytes > static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
  const std::uint64_t offset_unit = std::max(host_page_bytes, page_bytes());
  const std::uint64_t size_unit = is_huge ? offset_unit : page_bytes();
  if (source.byte_count == 0 || source.byte_count % size_unit != 0) {
    return {MemoryStep::kSize, index, 0, size_unit};
  }
  if (source.file_offset % offset_unit != 0) {
    return {MemoryStep::kOffset, index, 0, offset_unit};
  }
  const auto file_bytes = static_cast<std::uint64_t>(status.st_size);
  if (file_bytes < source.file_offset || file_bytes - source.file_offset < source.byte_count) {
    return {MemoryStep::kShort, index, 0, file_bytes};
  }
  const int file = Reopen(source.file);
  if (file < 0) {
    return {MemoryStep::kFile, index, errno, 0};
  }
  const int protection = is_writable ? PROT_READ | PROT_WRITE : PROT_READ;
  void* bytes = mmap(nullptr, source.byte_count, protection, MAP_SHARED, file,
                     static_cast<off_t>(source.file_offset));
  if (bytes == MAP_FAILED) {
    const int error = errno;
    close(file);
    return {MemoryStep::kMap, index, error, 0};
  }
  blocks_.push_back({static_cast<std::uint8_t*>(bytes), source.byte_count, is_writable, file,
                     source.file_offset, host_page_bytes});
  guards_.emplace_back(
      FileMapping{static_cast<std::uint8_t*>(bytes), source.byte_count, host_page_bytes, file,
                  source.file_offset},
      &is_lost_);
  return {};
}

void GuestMemory::LookForLoss() const noexcept {
  for (const MemoryBlock& block : blocks_) {
    struct stat status;
    if (block.file >= 0 && fstat(block.file, &status) == 0 &&
        static_cast<std::uint64_t>(status.st_size) < block.file_offset + block.byte_count) {
      is_lost_.store(true);
    }
  }
}

}  // namespace pagelane::kernel
