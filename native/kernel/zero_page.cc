#include "kernel/zero_page.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "kernel/bytes.h"
#include "kernel/cpu.h"
#include "kernel/variants.h"

namespace pagelane::kernel {

namespace {

/* Chosen by us */
constexpr std::size_t kTogether = 4;     // pages that are tested side by side
constexpr std::size_t kStepBytes = 512;  // of each, in turn

/// Finds a single set byte wherever it is, and no byte where there is none.
bool PassesTrial(ZeroTest test, std::uint8_t* zeros) noexcept {
  constexpr std::size_t kBytes = 1024;
  for (std::size_t offset = 0; offset < 3; offset++) {
    std::uint8_t* bytes = zeros + offset;
    if (!test(bytes, kBytes)) {
      return false;
    }
    for (std::size_t at = 0; at < kBytes; at++) {
      bytes[at] = 0x80;
      const bool is_missed = test(bytes, kBytes);
      bytes[at] = 0;
      if (is_missed) {
        return false;
      }
    }
  }
  return true;
}

Variants<ZeroPageVariant> MakeTable() noexcept {
  const Candidate<ZeroPageVariant> candidates[] = {
      {{"portable", IsZeroPortable}, true},
#if defined(__x86_64__)
      {{"avx2", IsZeroAvx2}, DetectCpu().has_avx2},
      {{"avx512", IsZeroAvx512}, DetectCpu().has_avx512},
#elif defined(__aarch64__)
      {{"neon", IsZeroNeon}, DetectCpu().has_neon},
#endif
  };
  const auto zeros = NewTrialBytes();
  if (zeros == nullptr) {
    return Variants<ZeroPageVariant>(candidates[0]);
  }
  return Variants<ZeroPageVariant>(
      candidates,
      [&](const ZeroPageVariant& variant) { return PassesTrial(variant.test, zeros.get()); },
      [&](const ZeroPageVariant& variant) {
        return TimeTrial([&](std::size_t at) {
          return variant.test(zeros.get() + at, kTrialPageBytes);
        });
      });
}

const Variants<ZeroPageVariant>& Table() noexcept {
  static const Variants<ZeroPageVariant> table = MakeTable();
  return table;
}

/// Pages that begin with zeros and are tested together.
struct Suspects {
  const std::uint8_t* pages[kTogether];
  std::uint32_t bits[kTogether];
  std::size_t count = 0;
};

/// Tests one page after the other: for neighbours, which are one stream to the processor.
std::uint32_t TestInTurn(const Suspects& suspects, std::size_t page_bytes, ZeroTest test) noexcept {
  std::uint32_t found = 0;
  for (std::size_t i = 0; i < suspects.count; i++) {
    if (IsZeroPage(suspects.pages[i], page_bytes, test)) {
      found |= suspects.bits[i];
    }
  }
  return found;
}

/// Tests all pages side by side. Each begins a stream of its own, which takes the processor a while
/// to follow: so they wait for memory at the same time. Half of all pages zero, it takes two thirds
/// of the time.
std::uint32_t TestInStep(const Suspects& suspects, std::size_t page_bytes, ZeroTest test) noexcept {
  std::uint32_t found = 0;
  for (std::size_t i = 0; i < suspects.count; i++) {
    const std::uint8_t* page = suspects.pages[i];
    found |= (page[page_bytes / 2] | page[page_bytes - 1]) == 0 ? suspects.bits[i] : 0;
  }
  for (std::size_t at = 0; at < page_bytes && found != 0; at += kStepBytes) {
    const std::size_t byte_count = std::min(kStepBytes, page_bytes - at);
    for (std::size_t i = 0; i < suspects.count; i++) {
      if ((found & suspects.bits[i]) != 0 && !test(suspects.pages[i] + at, byte_count)) {
        found &= ~suspects.bits[i];
      }
    }
  }
  return found;
}

bool AreNeighbours(const Suspects& suspects, std::size_t page_bytes) noexcept {
  const auto distance =
      static_cast<std::size_t>(suspects.pages[suspects.count - 1] - suspects.pages[0]);
  return distance == (suspects.count - 1) * page_bytes;
}

/// A bit for each of at most 32 pages. Most that are not zero cost one access to memory.
///
/// is_run: whether the pages before were zero; then no look ahead interrupts the stream. Kept.
std::uint32_t FindAmong(const std::uint8_t* pages, std::size_t page_count, std::size_t page_bytes,
                        ZeroTest test, bool* is_run) noexcept {
  std::uint32_t found = 0;
  Suspects suspects;
  for (std::size_t i = 0; i < page_count; i++) {
    const std::uint8_t* page = pages + i * page_bytes;
    const std::uint32_t bit = std::uint32_t{1} << i;
    if (*is_run) {
      *is_run = test(page, page_bytes);
      found |= *is_run ? bit : 0;
      continue;
    }
    if (LoadLe<std::uint64_t>(page) != 0) {
      continue;
    }
    suspects.pages[suspects.count] = page;
    suspects.bits[suspects.count] = bit;
    if (++suspects.count < kTogether) {
      continue;
    }
    if (AreNeighbours(suspects, page_bytes)) {
      found |= TestInTurn(suspects, page_bytes, test);
      *is_run = (found & bit) != 0;
    } else {
      found |= TestInStep(suspects, page_bytes, test);
    }
    suspects.count = 0;
  }
  return found | TestInStep(suspects, page_bytes, test);
}

}  // namespace

bool IsZeroPortable(const std::uint8_t* bytes, std::size_t byte_count) noexcept {
  for (std::size_t at = 0; at < byte_count; at += 64) {
    std::uint64_t words[8];
    std::memcpy(words, bytes + at, sizeof words);
    const std::uint64_t low = words[0] | words[1] | words[2] | words[3];
    const std::uint64_t high = words[4] | words[5] | words[6] | words[7];
    if ((low | high) != 0) {
      return false;
    }
  }
  return true;
}

std::span<const ZeroPageVariant> ZeroPageVariants() noexcept {
  return Table().all();
}

const ZeroPageVariant& FastestZeroPage() noexcept {
  return Table().fastest();
}

std::size_t FindZeroPages(const std::uint8_t* pages, std::size_t page_count,
                          std::size_t page_bytes, std::span<std::uint32_t> bitmap,
                          ZeroTest test) noexcept {
  std::size_t zero_count = 0;
  std::size_t page = 0;
  bool is_run = false;
  for (std::uint32_t& word : bitmap) {
    const std::size_t count = std::min<std::size_t>(page_count - page, 32);
    word = FindAmong(pages + page * page_bytes, count, page_bytes, test, &is_run);
    zero_count += static_cast<std::size_t>(std::popcount(word));
    page += count;
  }
  return zero_count;
}

}  // namespace pagelane::kernel
