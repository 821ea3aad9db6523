#include "kernel/bitmap.h"

#include <algorithm>
#include <bit>
#include <chrono>
#include <cstring>
#include <memory>
#include <new>

#include "kernel/cpu.h"
#include "kernel/variants.h"

namespace pagelane::kernel {

namespace {

static_assert(std::endian::native == std::endian::little);

/// A block and the word before it, copied: it does not change, and has no bit outside of the range.
struct Block {
  alignas(64) std::uint64_t all[8 + kBitmapBlockWords];

  Block() noexcept { words()[kBitmapBlockWords - 1] = 0; }
  std::uint64_t* words() noexcept { return all + 8; }
};

/// Copies the block of words that begins with `word`. Bits outside of the range are clear.
///
/// Promise: the word before it is what the last block ended with.
void CopyBlock(const BitmapRange& range, std::uint64_t word, Block* block) noexcept {
  std::uint64_t* words = block->words();
  words[-1] = words[kBitmapBlockWords - 1];
  const std::uint64_t word_count =
      std::min<std::uint64_t>((range.to + 63) / 64 - word, kBitmapBlockWords);
  std::memcpy(words, range.words + word, word_count * sizeof *words);
  std::fill(words + word_count, words + kBitmapBlockWords, 0);
  if (word == range.from / 64) {
    words[0] &= ~std::uint64_t{0} << (range.from % 64);
  }
  if (range.to % 64 != 0 && range.to / 64 - word < kBitmapBlockWords) {
    words[range.to / 64 - word] &= ~(~std::uint64_t{0} << (range.to % 64));
  }
}

/// Has the processor read the block that begins with `word`, if there is one: what it does with the
/// one it has takes as long as memory does, and neither should wait for the other.
void Prefetch(const BitmapRange& range, std::uint64_t word) noexcept {
  if (64 * (word + kBitmapBlockWords) > range.to) {
    return;
  }
  for (std::size_t line = 0; line < kBitmapBlockWords; line += 8) {
    __builtin_prefetch(range.words + word + line);
  }
}

/// Sets one bit of a hundred, the rest to zero; all bits of some words, so that runs cross them.
void FillTrialWords(std::span<std::uint64_t> words, std::uint64_t seed) noexcept {
  std::fill(words.begin(), words.end(), 0);
  std::uint64_t state = seed;
  for (std::size_t bit = 0; bit < 64 * words.size(); bit += 1 + (state >> 32) % 200) {
    words[bit / 64] |= state % 500 == 0 ? ~std::uint64_t{0} : std::uint64_t{1} << (bit % 64);
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
  }
}

/// Nanoseconds that finding all runs takes, at best. Data are fresh each time: a processor learns
/// by heart what it sees again, and would say nothing about bitmaps.
std::int64_t TimeWalk(std::span<std::uint64_t> words, const BitmapVariant& variant) noexcept {
  constexpr std::uint64_t kRounds = 6;
  double runs[2 * 512];
  std::int64_t best = INT64_MAX;
  for (std::uint64_t round = 1; round <= kRounds; round++) {
    FillTrialWords(words, round * 0x9E3779B97F4A7C15);
    const auto begin = std::chrono::steady_clock::now();
    for (std::size_t at = 0; at < words.size(); at += 512) {
      const std::size_t count = FindRuns({words.data() + at, 0, 512 * 64}, runs, 512, variant);
      asm volatile("" : : "r"(count) : "memory");
    }
    const auto end = std::chrono::steady_clock::now();
    best = std::min<std::int64_t>(best, (end - begin).count());
  }
  return best;
}

/// Whether a variant does with a block what the portable one does.
bool IsSame(const BitmapVariant& variant, const std::uint64_t* words) noexcept {
  std::uint16_t wanted[kBitmapEdgesMax];
  std::uint16_t found[kBitmapEdgesMax];
  const std::size_t edge_count = FindEdgesPortable(words, wanted);
  if (variant.find(words, found) != edge_count ||
      std::memcmp(wanted, found, edge_count * sizeof *found) != 0 ||
      variant.count(words, kBitmapBlockWords) != CountBitsPortable(words, kBitmapBlockWords)) {
    return false;
  }
  constexpr double kBase = 1099511627776;
  double wanted_runs[64];
  double found_runs[64];
  const std::size_t run_edges = std::min<std::size_t>(edge_count, 61);
  WriteRunsPortable(wanted, run_edges, kBase, wanted_runs);
  variant.write(wanted, run_edges, kBase, found_runs);
  return std::memcmp(wanted_runs, found_runs, run_edges * sizeof *found_runs) == 0;
}

bool PassesTrial(std::span<std::uint64_t> words, const BitmapVariant& variant) noexcept {
  FillTrialWords(words, 1);
  // Some that are dense: every second bit, and no pattern at all.
  std::fill(words.begin() + 512, words.begin() + 768, 0x5555555555555555);
  FillTrialBytes(reinterpret_cast<std::uint8_t*>(words.data() + 768), 2048);
  for (std::size_t at = 1; at + kBitmapBlockWords <= words.size(); at += 97) {
    if (!IsSame(variant, words.data() + at)) {
      return false;
    }
  }
  return true;
}

Variants<BitmapVariant> MakeTable() noexcept {
  const Candidate<BitmapVariant> candidates[] = {
      {{"portable", FindEdgesPortable, WriteRunsPortable, CountBitsPortable}, true},
#if defined(__x86_64__)
      {{"avx2", FindEdgesAvx2, WriteRunsAvx2, CountBitsAvx2}, DetectCpu().has_bits},
      {{"avx512", FindEdgesAvx512, WriteRunsAvx512, CountBitsAvx512},
       DetectCpu().has_avx512_bits},
#endif
  };
  constexpr std::size_t kWords = kTrialBytes / sizeof(std::uint64_t);
  const std::unique_ptr<std::uint64_t[]> memory(new (std::nothrow) std::uint64_t[kWords]);
  if (memory == nullptr) {
    return Variants<BitmapVariant>(candidates[0]);
  }
  const std::span words(memory.get(), kWords);
  return Variants<BitmapVariant>(
      candidates, [&](const BitmapVariant& variant) { return PassesTrial(words, variant); },
      [&](const BitmapVariant& variant) { return TimeWalk(words, variant); });
}

const Variants<BitmapVariant>& Table() noexcept {
  static const Variants<BitmapVariant> table = MakeTable();
  return table;
}

}  // namespace

std::size_t FindEdgesPortable(const std::uint64_t* words, std::uint16_t* edges) noexcept {
  std::uint16_t* out = edges;
  std::uint64_t before = words[-1];
  for (std::size_t i = 0; i < kBitmapBlockWords; i++) {
    std::uint64_t left = words[i] ^ (words[i] << 1 | before >> 63);
    before = words[i];
    for (; left != 0; left &= left - 1) {
      *out++ = static_cast<std::uint16_t>(64 * i + static_cast<unsigned>(std::countr_zero(left)));
    }
  }
  return static_cast<std::size_t>(out - edges);
}

void WriteRunsPortable(const std::uint16_t* edges, std::size_t edge_count, double base,
                       double* runs) noexcept {
  for (std::size_t i = 0; i < edge_count; i += 2) {
    runs[i] = base + edges[i];
    if (i + 1 < edge_count) {
      runs[i + 1] = edges[i + 1] - edges[i];
    }
  }
}

std::uint64_t CountBitsPortable(const std::uint64_t* words, std::size_t word_count) noexcept {
  std::uint64_t count = 0;
  for (std::size_t i = 0; i < word_count; i++) {
    count += static_cast<std::uint64_t>(std::popcount(words[i]));
  }
  return count;
}

std::span<const BitmapVariant> BitmapVariants() noexcept {
  return Table().all();
}

const BitmapVariant& FastestBitmap() noexcept {
  return Table().fastest();
}

std::size_t FindRuns(const BitmapRange& range, double* runs, std::size_t run_count_max,
                     const BitmapVariant& variant) noexcept {
  Block block;
  std::uint16_t edges[kBitmapEdgesMax];
  std::size_t edge_count = 0;
  for (std::uint64_t at = range.from / 64; 64 * at < range.to && edge_count < 2 * run_count_max;
       at += kBitmapBlockWords) {
    CopyBlock(range, at, &block);
    Prefetch(range, at + 2 * kBitmapBlockWords);
    const std::size_t found =
        std::min(variant.find(block.words(), edges), 2 * run_count_max - edge_count);
    const auto base = static_cast<double>(64 * at);
    std::size_t used = 0;
    if (edge_count % 2 != 0 && found > 0) {
      runs[edge_count] = base + edges[0] - runs[edge_count - 1];
      used = 1;
    }
    variant.write(edges + used, found - used, base, runs + edge_count + used);
    edge_count += found;
  }
  if (edge_count % 2 != 0) {
    runs[edge_count] = static_cast<double>(range.to) - runs[edge_count - 1];
  }
  return (edge_count + 1) / 2;
}

std::uint64_t CountBits(const BitmapRange& range, const BitmapVariant& variant) noexcept {
  return FindBit(range, UINT64_MAX, variant).bit_count;
}

BitPlace FindBit(const BitmapRange& range, std::uint64_t bit_count,
                 const BitmapVariant& variant) noexcept {
  Block block;
  std::uint64_t left = bit_count;
  for (std::uint64_t at = range.from / 64; 64 * at < range.to && left > 0;
       at += kBitmapBlockWords) {
    CopyBlock(range, at, &block);
    const std::uint64_t count = variant.count(block.words(), kBitmapBlockWords);
    if (count < left) {
      left -= count;
      continue;
    }
    std::size_t word = 0;
    for (; variant.count(block.words() + word, 1) < left; word++) {
      left -= variant.count(block.words() + word, 1);
    }
    std::uint64_t bits = block.words()[word];
    for (; left > 1; left--) {
      bits &= bits - 1;
    }
    const auto bit = static_cast<std::uint64_t>(std::countr_zero(bits));
    return {64 * (at + word) + bit + 1, bit_count};
  }
  return {left == 0 ? range.from : range.to, bit_count - left};
}

void MergeBits(std::uint32_t* into, const std::uint32_t* from, std::size_t word_count,
               bool is_shared) noexcept {
  for (std::size_t i = 0; i < word_count; i++) {
    const std::uint32_t bits = __atomic_load_n(from + i, __ATOMIC_RELAXED);
    if (!is_shared) {
      into[i] |= bits;
    } else if (bits != 0) {
      __atomic_fetch_or(into + i, bits, __ATOMIC_RELEASE);
    }
  }
}

void TakeBits(std::uint32_t* into, std::uint32_t* from, std::size_t word_count,
              bool is_shared) noexcept {
  for (std::size_t i = 0; i < word_count; i++) {
    if (__atomic_load_n(from + i, __ATOMIC_RELAXED) == 0) {
      continue;
    }
    const std::uint32_t bits = __atomic_exchange_n(from + i, 0, __ATOMIC_ACQ_REL);
    if (is_shared) {
      __atomic_fetch_or(into + i, bits, __ATOMIC_RELEASE);
    } else {
      into[i] |= bits;
    }
  }
}

}  // namespace pagelane::kernel
