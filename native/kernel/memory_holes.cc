#include "kernel/memory_holes.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "kernel/page_bits.h"

namespace pagelane::kernel {

namespace {

/// Bytes of a host page that are read at a time; on the stack.
constexpr std::size_t kPieceBytes = 16 * 1024;
/// What `stat` counts in.
constexpr std::uint64_t kStatBlockBytes = 512;

/// Says whether `byte_count` bytes of a file are zeros. Returns 0, or errno.
int IsZero(int file, std::uint64_t offset, std::uint64_t byte_count, bool* is_zero) noexcept {
  alignas(64) std::uint8_t piece[kPieceBytes];
  for (std::uint64_t at = 0; at < byte_count;) {
    const std::size_t wanted = std::min<std::uint64_t>(sizeof piece, byte_count - at);
    const ssize_t count = pread(file, piece, wanted, static_cast<off_t>(offset + at));
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count < 0) {
      return errno;
    }
    // Behind the end of the file there is nothing; that it ends early is seen elsewhere.
    if (count == 0) {
      break;
    }
    const auto length = static_cast<std::size_t>(count);
    if (piece[0] != 0 || std::memcmp(piece, piece + 1, length - 1) != 0) {
      *is_zero = false;
      return 0;
    }
    at += length;
  }
  *is_zero = true;
  return 0;
}

/// By what is in the host pages, where the file says nothing of holes.
int FindByContents(const MemoryBlock& block, std::uint64_t page_bytes,
                   std::span<std::uint32_t> words) noexcept {
  struct stat status;
  if (fstat(block.file, &status) != 0) {
    return errno;
  }
  const std::uint64_t used_bytes = static_cast<std::uint64_t>(status.st_blocks) * kStatBlockBytes;
  if (used_bytes == 0) {
    return 0;
  }
  if (used_bytes >= static_cast<std::uint64_t>(status.st_size)) {
    SetBits(words, 0, block.byte_count / page_bytes);
    return 0;
  }
  for (std::uint64_t at = 0; at < block.byte_count; at += block.host_page_bytes) {
    bool is_zero = false;
    const int error = IsZero(block.file, block.file_offset + at, block.host_page_bytes, &is_zero);
    if (error != 0) {
      return error;
    }
    if (!is_zero) {
      SetBits(words, at / page_bytes, (at + block.host_page_bytes) / page_bytes);
    }
  }
  return 0;
}

bool IsHuge(const MemoryBlock& block) noexcept {
  return block.file >= 0 &&
         block.host_page_bytes > static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
}

/// Writes zeros where they are not yet, so that no page is made for them.
int Clear(const MemoryBlock& block, std::uint64_t begin, std::uint64_t end) noexcept {
  bool is_zero = false;
  const int error = IsZero(block.file, block.file_offset + begin, end - begin, &is_zero);
  if (error == 0 && !is_zero) {
    std::memset(block.bytes + begin, 0, end - begin);
  }
  return error;
}

}  // namespace

int FindData(const GuestMemory& memory, std::size_t index, std::uint64_t begin,
             std::uint64_t* data) noexcept {
  const MemoryBlock& block = memory.block(index);
  const off_t found = lseek(block.file, static_cast<off_t>(block.file_offset + begin), SEEK_DATA);
  *data = block.byte_count;
  if (found < 0) {
    return errno == ENXIO ? 0 : errno;  // ENXIO: a hole up to the end
  }
  *data = std::min(static_cast<std::uint64_t>(found) - block.file_offset, block.byte_count);
  return 0;
}

int FindPopulated(const GuestMemory& memory, std::size_t index,
                  std::span<std::uint32_t> words) noexcept {
  const MemoryBlock& block = memory.block(index);
  if (block.file < 0) {
    SetBits(words, 0, memory.PageCount(index));
    return 0;
  }
  if (IsHuge(block)) {
    return FindByContents(block, memory.page_bytes(), words);
  }
  const std::uint64_t page_bytes = memory.page_bytes();
  for (std::uint64_t at = 0; at < block.byte_count;) {
    std::uint64_t data = 0;
    if (const int error = FindData(memory, index, at, &data);
        error != 0 || data >= block.byte_count) {
      return error;
    }
    const off_t hole =
        lseek(block.file, static_cast<off_t>(block.file_offset + data), SEEK_HOLE);
    if (hole < 0) {
      return errno == ENXIO ? 0 : errno;  // the file has just been cut off before it
    }
    at = std::min(static_cast<std::uint64_t>(hole) - block.file_offset, block.byte_count);
    SetBits(words, data / page_bytes, (at + page_bytes - 1) / page_bytes);
  }
  return 0;
}

int PunchPages(const GuestMemory& memory, std::size_t block, std::uint64_t first_page,
               std::uint64_t page_count) noexcept {
  const MemoryBlock& found = memory.block(block);
  std::uint64_t begin = first_page << memory.page_bits();
  std::uint64_t end = (first_page + page_count) << memory.page_bits();
  if (found.file < 0) {
    std::memset(found.bytes + begin, 0, end - begin);
    return 0;
  }
  // Only whole host pages are taken back; some kernels leave the rest of huge ones as it was.
  if (IsHuge(found)) {
    const std::uint64_t unit = found.host_page_bytes;
    const std::uint64_t inner_begin = std::min(end, (begin + unit - 1) / unit * unit);
    const std::uint64_t inner_end = std::max(inner_begin, end / unit * unit);
    if (const int error = Clear(found, begin, inner_begin); error != 0) {
      return error;
    }
    if (const int error = Clear(found, inner_end, end); error != 0) {
      return error;
    }
    begin = inner_begin;
    end = inner_end;
  }
  if (begin == end || fallocate(found.file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                static_cast<off_t>(found.file_offset + begin),
                                static_cast<off_t>(end - begin)) == 0) {
    return 0;
  }
  if (errno != EOPNOTSUPP) {
    return errno;
  }
  std::memset(found.bytes + begin, 0, end - begin);
  return 0;
}

}  // namespace pagelane::kernel
