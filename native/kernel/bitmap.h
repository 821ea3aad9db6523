#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace pagelane::kernel {

/// Words of a dirty bitmap that are looked at together.
inline constexpr std::size_t kBitmapBlockWords = 128;
/// Room for the edges of a block: each bit, one behind the last, and what vectors write beyond.
inline constexpr std::size_t kBitmapEdgesMax = kBitmapBlockWords * 64 + 64;

/// Finds the bits that differ from the bit before: where runs begin and end, in turn.
///
/// words:      kBitmapBlockWords words, and a word before them that is read too.
/// edges:      room for kBitmapEdgesMax; gets the bits' indexes, ascending.
/// Returns:    how many.
using EdgeFinder = std::size_t (*)(const std::uint64_t* words, std::uint16_t* edges) noexcept;

/// Writes `base + edge` for each edge at which a run begins, and for the next how long the run is,
/// as JavaScript has numbers. The first begins one; the last may have no end.
using RunWriter = void (*)(const std::uint16_t* edges, std::size_t edge_count, double base,
                           double* runs) noexcept;

/// Counts the bits of `word_count` words that are set.
using BitCounter = std::uint64_t (*)(const std::uint64_t* words, std::size_t word_count) noexcept;

/// One way to walk bitmaps.
struct BitmapVariant {
  const char* name;
  EdgeFinder find;
  RunWriter write;
  BitCounter count;
};

/// Variants that run on this processor and passed their self-test; the portable one is first.
std::span<const BitmapVariant> BitmapVariants() noexcept;

/// The variant that found scattered pages fastest in a self-test, made at the first call.
const BitmapVariant& FastestBitmap() noexcept;

/// Pages of a dirty bitmap: page p is bit p % 64 of word p / 64, of which all up to `to` exist.
/// Other threads may change the words meanwhile: then each has one of the values it had.
struct BitmapRange {
  const std::uint64_t* words;
  std::uint64_t from;
  std::uint64_t to;
};

/// Finds runs of set bits, the first that there are, ascending.
///
/// runs:    gets the first page and the number of pages of each, at most run_count_max times.
/// Returns: how many runs; if fewer than run_count_max, there are no more.
std::size_t FindRuns(const BitmapRange& range, double* runs, std::size_t run_count_max,
                     const BitmapVariant& variant) noexcept;

/// How many bits of the range are set.
std::uint64_t CountBits(const BitmapRange& range, const BitmapVariant& variant) noexcept;

/// The place behind the `bit_count`-th set bit, and how many bits are set before it.
struct BitPlace {
  std::uint64_t end;
  std::uint64_t bit_count;
};

/// Finds the place behind the `bit_count`-th set bit of the range, its end if there are fewer.
BitPlace FindBit(const BitmapRange& range, std::uint64_t bit_count,
                 const BitmapVariant& variant) noexcept;

/// Sets the bits in `into` that are set in `from`. Atomic word by word, if `into` is shared.
void MergeBits(std::uint32_t* into, const std::uint32_t* from, std::size_t word_count,
               bool is_shared) noexcept;

/// Moves the bits of `from` to `into`, while other threads set some with atomic operations: what
/// they wrote before they set a bit is there for who finds it in `into`. None is lost.
/// Words have 32 bits, as the threads' own operations in JavaScript.
void TakeBits(std::uint32_t* into, std::uint32_t* from, std::size_t word_count,
              bool is_shared) noexcept;

/// The variants' parts; only what `DetectCpu` allows may be called.
std::size_t FindEdgesPortable(const std::uint64_t* words, std::uint16_t* edges) noexcept;
void WriteRunsPortable(const std::uint16_t* edges, std::size_t edge_count, double base,
                       double* runs) noexcept;
std::uint64_t CountBitsPortable(const std::uint64_t* words, std::size_t word_count) noexcept;
#if defined(__x86_64__)
std::size_t FindEdgesAvx2(const std::uint64_t* words, std::uint16_t* edges) noexcept;
void WriteRunsAvx2(const std::uint16_t* edges, std::size_t edge_count, double base,
                   double* runs) noexcept;
std::uint64_t CountBitsAvx2(const std::uint64_t* words, std::size_t word_count) noexcept;
std::size_t FindEdgesAvx512(const std::uint64_t* words, std::uint16_t* edges) noexcept;
void WriteRunsAvx512(const std::uint16_t* edges, std::size_t edge_count, double base,
                     double* runs) noexcept;
std::uint64_t CountBitsAvx512(const std::uint64_t* words, std::size_t word_count) noexcept;
#endif

}  // namespace pagelane::kernel
