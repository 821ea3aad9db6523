// What the kernels map is followed by a page that nobody may touch: a sanitizer knows nothing of
// such memory. Link with --wrap=mmap.

#include <sys/mman.h>

#include "support.h"

extern "C" {
void* __real_mmap(void* address, std::size_t bytes, int protection, int flags, int file,
                  off_t offset);

void* __wrap_mmap(void* address, std::size_t bytes, int protection, int flags, int file,
                  off_t offset) {
  constexpr std::size_t kGuardBytes = 4096;
  if (FailsNow()) {
    return MAP_FAILED;
  }
  void* mapped = __real_mmap(address, bytes + kGuardBytes, protection, flags, file, offset);
  if (mapped != MAP_FAILED) {
    mprotect(static_cast<char*>(mapped) + bytes, kGuardBytes, PROT_NONE);
  }
  return mapped;
}
}
