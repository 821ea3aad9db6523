#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>

#include "kernel/bitmap.h"
#include "kernel/delta.h"
#include "kernel/fill_page.h"
#include "kernel/hash.h"
#include "kernel/similarity.h"
#include "kernel/zero_page.h"
#include "support.h"

namespace kernel = pagelane::kernel;

GuardedBytes::GuardedBytes(std::size_t byte_count_max)
    : guard_bytes_(static_cast<std::size_t>(sysconf(_SC_PAGESIZE))) {
  inner_bytes_ = (byte_count_max + guard_bytes_ - 1) / guard_bytes_ * guard_bytes_;
  void* memory = mmap(nullptr, inner_bytes_ + 2 * guard_bytes_, PROT_NONE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(memory != MAP_FAILED);
  begin_ = static_cast<std::uint8_t*>(memory) + guard_bytes_;
  CHECK(inner_bytes_ == 0 || mprotect(begin_, inner_bytes_, PROT_READ | PROT_WRITE) == 0);
}

GuardedBytes::~GuardedBytes() {
  munmap(begin_ - guard_bytes_, inner_bytes_ + 2 * guard_bytes_);
}

template <typename Variant>
static void Say(const char* name, std::span<const Variant> variants, const Variant& fastest) {
  std::printf("%s:", name);
  for (const Variant& variant : variants) {
    std::printf(" %s%s", variant.name, variant.name == fastest.name ? "*" : "");
  }
  std::printf("\n");
}

int main() {
  TestZeroPage();
  Say("zero page", kernel::ZeroPageVariants(), kernel::FastestZeroPage());
  TestFillPage();
  Say("fill page", kernel::FillPageVariants(), kernel::FastestFillPage());
  TestDelta();
  TestHostileDelta();
  Say("delta", kernel::DeltaVariants(), kernel::FastestDelta());
  TestSimilarity();
  Say("similarity", kernel::SimilarityVariants(), kernel::FastestSimilarity());
  TestHash();
  Say("hash", kernel::HashVariants(), kernel::FastestHash());
  TestBitmap();
  Say("bitmap", kernel::BitmapVariants(), kernel::FastestBitmap());
  return 0;
}
