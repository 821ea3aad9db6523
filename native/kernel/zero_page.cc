#include "kernel/zero_page.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <iterator>

#include "kernel/bytes.h"
#include "kernel/cpu.h"

namespace pagelane::kernel {

namespace {

/* Chosen by us */
constexpr std::size_t kTrialBytes = 64 * 1024;  // stays in the second-level cache
constexpr int kTrialRounds = 24;                // the best counts; the first warm the code up
constexpr std::size_t kVariantsMax = 4;

struct VariantTable {
  ZeroPageVariant variants[kVariantsMax];
  std::size_t count = 0;
  std::size_t fastest = 0;
};

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

/// Nanoseconds of the best round over the whole trial buffer, in pages of 4 KiB.
std::int64_t TimeTrial(ZeroTest test, const std::uint8_t* zeros) noexcept {
  std::int64_t best = INT64_MAX;
  for (int round = 0; round < kTrialRounds; round++) {
    const auto begin = std::chrono::steady_clock::now();
    bool is_zero = true;
    for (std::size_t at = 0; at < kTrialBytes; at += 4096) {
      is_zero &= test(zeros + at, 4096);
    }
    const auto end = std::chrono::steady_clock::now();
    // The result is part of what is compared, so that no compiler drops the work.
    const std::int64_t taken = is_zero ? (end - begin).count() : INT64_MAX;
    best = std::min(best, taken);
  }
  return best;
}

VariantTable MakeTable() noexcept {
  VariantTable table;
  table.variants[table.count++] = {"portable", IsZeroPortable};
  ZeroPageVariant wider[kVariantsMax];
  std::size_t wider_count = 0;
#if defined(__x86_64__)
  if (DetectCpu().has_avx2) {
    wider[wider_count++] = {"avx2", IsZeroAvx2};
  }
  if (DetectCpu().has_avx512) {
    wider[wider_count++] = {"avx512", IsZeroAvx512};
  }
#elif defined(__aarch64__)
  if (DetectCpu().has_neon) {
    wider[wider_count++] = {"neon", IsZeroNeon};
  }
#endif
  auto* zeros = static_cast<std::uint8_t*>(std::calloc(1, kTrialBytes));
  if (zeros == nullptr) {
    return table;
  }
  std::int64_t best = TimeTrial(IsZeroPortable, zeros);
  for (std::size_t i = 0; i < wider_count; i++) {
    if (!PassesTrial(wider[i].test, zeros)) {
      continue;
    }
    const std::int64_t taken = TimeTrial(wider[i].test, zeros);
    if (taken < best) {
      best = taken;
      table.fastest = table.count;
    }
    table.variants[table.count++] = wider[i];
  }
  std::free(zeros);
  return table;
}

const VariantTable& Table() noexcept {
  static const VariantTable table = MakeTable();
  return table;
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
  const VariantTable& table = Table();
  return {table.variants, table.count};
}

const ZeroPageVariant& FastestZeroPage() noexcept {
  const VariantTable& table = Table();
  return table.variants[table.fastest];
}

std::size_t FindZeroPages(const std::uint8_t* pages, std::size_t page_count,
                          std::size_t page_bytes, std::span<std::uint32_t> bitmap,
                          ZeroTest test) noexcept {
  std::size_t zero_count = 0;
  std::size_t page = 0;
  for (std::uint32_t& word : bitmap) {
    std::uint32_t bits = 0;
    const std::size_t end = std::min(page_count, page + 32);
    for (std::uint32_t bit = 1; page < end; page++, bit <<= 1) {
      if (IsZeroPage(pages + page * page_bytes, page_bytes, test)) {
        bits |= bit;
        zero_count++;
      }
    }
    word = bits;
  }
  return zero_count;
}

}  // namespace pagelane::kernel
