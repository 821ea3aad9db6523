#include "kernel/fill_page.h"

#include "kernel/cpu.h"
#include "kernel/variants.h"

namespace pagelane::kernel {

namespace {

/// Finds a single changed byte wherever it is, and no change where there is none.
bool PassesTrial(FillTest test, std::uint8_t* filled) noexcept {
  constexpr std::size_t kBytes = 1024;
  for (std::size_t offset = 0; offset < 3; offset++) {
    std::uint8_t* bytes = filled + offset;
    if (!test(bytes, kBytes)) {
      return false;
    }
    for (std::size_t at = 0; at < kBytes; at++) {
      bytes[at] ^= 0x80;
      const bool is_missed = test(bytes, kBytes);
      bytes[at] ^= 0x80;
      if (is_missed) {
        return false;
      }
    }
  }
  return true;
}

Variants<FillPageVariant> MakeTable() noexcept {
  const Candidate<FillPageVariant> candidates[] = {
      {{"portable", IsFillPortable}, true},
#if defined(__x86_64__)
      {{"avx2", IsFillAvx2}, DetectCpu().has_avx2},
      {{"avx512", IsFillAvx512}, DetectCpu().has_avx512},
#elif defined(__aarch64__)
      {{"neon", IsFillNeon}, DetectCpu().has_neon},
#endif
  };
  const auto filled = NewTrialBytes();
  if (filled == nullptr) {
    return Variants<FillPageVariant>(candidates[0]);
  }
  for (std::size_t at = 0; at < kTrialBytes; at++) {
    filled[at] = static_cast<std::uint8_t>(0x11 * (at % 8 + 1));
  }
  return Variants<FillPageVariant>(
      candidates,
      [&](const FillPageVariant& variant) { return PassesTrial(variant.test, filled.get()); },
      [&](const FillPageVariant& variant) {
        return TimeTrial([&](std::size_t at) {
          return variant.test(filled.get() + at, kTrialPageBytes);
        });
      });
}

const Variants<FillPageVariant>& Table() noexcept {
  static const Variants<FillPageVariant> table = MakeTable();
  return table;
}

}  // namespace

std::span<const FillPageVariant> FillPageVariants() noexcept {
  return Table().all();
}

const FillPageVariant& FastestFillPage() noexcept {
  return Table().fastest();
}

bool IsFillPage(const std::uint8_t* page, std::size_t page_bytes) noexcept {
  return IsFillPage(page, page_bytes, FastestFillPage().test);
}

bool IsFillPortable(const std::uint8_t* bytes, std::size_t byte_count) noexcept {
  const auto fill = LoadLe<std::uint64_t>(bytes);
  for (std::size_t at = 0; at < byte_count; at += 64) {
    std::uint64_t words[8];
    std::memcpy(words, bytes + at, sizeof words);
    const std::uint64_t low =
        (words[0] ^ fill) | (words[1] ^ fill) | (words[2] ^ fill) | (words[3] ^ fill);
    const std::uint64_t high =
        (words[4] ^ fill) | (words[5] ^ fill) | (words[6] ^ fill) | (words[7] ^ fill);
    if ((low | high) != 0) {
      return false;
    }
  }
  return true;
}

}  // namespace pagelane::kernel
