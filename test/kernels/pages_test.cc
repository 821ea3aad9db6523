// Zero pages and fill pages.
#include <algorithm>
#include <cstring>

#include "kernel/fill_page.h"
#include "kernel/zero_page.h"
#include "support.h"

namespace kernel = pagelane::kernel;

namespace {

bool IsZeroNaively(const std::uint8_t* bytes, std::size_t byte_count) {
  return std::all_of(bytes, bytes + byte_count, [](std::uint8_t byte) { return byte == 0; });
}

bool IsFillNaively(const std::uint8_t* bytes, std::size_t byte_count) {
  for (std::size_t at = 0; at < byte_count; at++) {
    if (bytes[at] != bytes[at % 8]) {
      return false;
    }
  }
  return true;
}

/// Asks about a page with each byte changed in turn, at every alignment; large pages by samples.
template <typename Test, typename Naive>
void CheckEveryByte(Test test, Naive naive, std::uint8_t first_byte) {
  for (const std::size_t page_bytes : kPageSizes) {
    for (std::size_t offset = 0; offset < 9; offset++) {
      Bytes page(page_bytes, offset);
      for (std::size_t at = 0; at < page_bytes; at++) {
        page[at] = static_cast<std::uint8_t>(first_byte * (1 + at % 8));
      }
      CHECK(test(page.data(), page_bytes));
      const std::size_t step = page_bytes <= 4160 ? 1 : 61;
      for (std::size_t at = offset % step; at < page_bytes; at += step) {
        page[at] ^= static_cast<std::uint8_t>(1 << (at % 8));
        CHECK(test(page.data(), page_bytes) == naive(page.data(), page_bytes));
        page[at] ^= static_cast<std::uint8_t>(1 << (at % 8));
      }
    }
  }
}

/// No byte outside the page is read.
template <typename Test>
void CheckGuarded(Test test) {
  for (const std::size_t page_bytes : kPageSizes) {
    GuardedBytes memory(page_bytes);
    CHECK(test(memory.AtBegin(), page_bytes));
    CHECK(test(memory.AtEnd(page_bytes), page_bytes));
  }
}

/// Pages of which `zero_share` of 8 are zero; others have one set byte or many.
void CheckScan(Random& random, kernel::ZeroTest test, std::size_t page_bytes,
               std::size_t zero_share) {
  const std::size_t page_count = random.Below(150);
  Bytes pages(page_count * page_bytes, random.Below(9));
  std::vector<bool> wanted(page_count);
  for (std::size_t page = 0; page < page_count; page++) {
    std::uint8_t* bytes = pages.data() + page * page_bytes;
    if (random.Below(8) >= zero_share) {
      const std::size_t changes = random.Below(4) == 0 ? page_bytes : 1;
      for (std::size_t i = 0; i < changes; i++) {
        bytes[random.Below(page_bytes)] = static_cast<std::uint8_t>(random.Next());
      }
    }
    wanted[page] = IsZeroNaively(bytes, page_bytes);
  }
  std::vector<std::uint32_t> bitmap(page_count / 32 + 3, 0xFFFFFFFF);
  const std::size_t found =
      kernel::FindZeroPages(pages.data(), page_count, page_bytes, bitmap, test);
  CHECK(found == static_cast<std::size_t>(std::count(wanted.begin(), wanted.end(), true)));
  for (std::size_t bit = 0; bit < bitmap.size() * 32; bit++) {
    const bool is_set = (bitmap[bit / 32] >> (bit % 32) & 1) != 0;
    CHECK(is_set == (bit < page_count && wanted[bit]));
  }
}

}  // namespace

void TestZeroPage() {
  CheckNoneIsMissing(kernel::ZeroPageVariants());
  for (const kernel::ZeroPageVariant& variant : kernel::ZeroPageVariants()) {
    CheckEveryByte(variant.test, IsZeroNaively, 0);
    CheckGuarded(variant.test);
    Random random(1);
    for (int round = 0; round < 200; round++) {
      CheckScan(random, variant.test, 64 * (1 + random.Below(20)), random.Below(9));
    }
    CheckScan(random, variant.test, 4096, 4);
    CheckScan(random, variant.test, 64 * 1024, 4);
  }
}

void TestFillPage() {
  CheckNoneIsMissing(kernel::FillPageVariants());
  for (const kernel::FillPageVariant& variant : kernel::FillPageVariants()) {
    for (const std::uint8_t first_byte : {0, 1, 0x35}) {
      CheckEveryByte(variant.test, IsFillNaively, first_byte);
    }
    const auto sampled = [&](const std::uint8_t* page, std::size_t page_bytes) {
      return kernel::IsFillPage(page, page_bytes, variant.test);
    };
    CheckEveryByte(sampled, IsFillNaively, 0x35);
    CheckGuarded(sampled);
  }
  Bytes page(4096);
  CHECK(kernel::IsFillPage(page.data(), page.size()));
  page[4095] = 1;
  CHECK(!kernel::IsFillPage(page.data(), page.size()));
}
