#pragma once

#include <algorithm>
#include <cassert>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <span>

namespace pagelane::kernel {

/// A way to do what a kernel does, and whether this processor can run it at all.
///
/// Variant: a struct of the kernel's own, `name` and a function pointer.
template <typename Variant>
struct Candidate {
  Variant variant;
  bool can_run;
};

/// The variants of a kernel that run here and are right, and the one that was fastest.
///
/// It is measured, not derived from the processor's features: 512-bit code slows some processors
/// down as a whole and speeds others up by a third.
template <typename Variant>
class Variants {
 public:
  /// candidates: at most kCountMax; the first is the portable one, which the others are held to,
  ///             narrow vectors before wide ones.
  /// passes:     whether a variant does on trial data what the portable one does.
  /// time:       nanoseconds a variant takes for the trial data.
  template <typename Passes, typename Time>
  Variants(std::span<const Candidate<Variant>> candidates, Passes passes, Time time) noexcept {
    assert(candidates.size() <= kCountMax);
    std::int64_t best = 0;
    for (const Candidate<Variant>& candidate : candidates) {
      if (count_ > 0 && (!candidate.can_run || !passes(candidate.variant))) {
        continue;
      }
      const std::int64_t taken = time(candidate.variant);
      // In memory, wide vectors gain nothing and may lose: a tie in the cache is theirs to lose.
      if (count_ == 0 || taken < best - best / kGainShare) {
        best = taken;
        fastest_ = count_;
      }
      variants_[count_++] = candidate.variant;
    }
  }

  /// Without memory for a trial there is the portable one.
  explicit Variants(const Candidate<Variant>& portable) noexcept : count_(1) {
    variants_[0] = portable.variant;
  }

  std::span<const Variant> all() const noexcept { return {variants_, count_}; }
  const Variant& fastest() const noexcept { return variants_[fastest_]; }

 private:
  static constexpr std::size_t kCountMax = 4;
  static constexpr std::int64_t kGainShare = 16;  // a later variant must be faster by a 16th

  Variant variants_[kCountMax] = {};
  std::size_t count_ = 0;
  std::size_t fastest_ = 0;
};

/// Bytes that a trial works on: few enough to stay in the second-level cache.
inline constexpr std::size_t kTrialBytes = 64 * 1024;
inline constexpr std::size_t kTrialPageBytes = 4096;

/// kTrialBytes zero bytes, null if there is no memory.
inline std::unique_ptr<std::uint8_t[]> NewTrialBytes() noexcept {
  return std::unique_ptr<std::uint8_t[]>(new (std::nothrow) std::uint8_t[kTrialBytes]());
}

/// Bytes that look random and are the same each time.
inline void FillTrialBytes(std::uint8_t* bytes, std::size_t byte_count) noexcept {
  std::uint64_t state = 0x9E3779B97F4A7C15;
  for (std::size_t at = 0; at < byte_count; at++) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    bytes[at] = static_cast<std::uint8_t>(state >> 56);
  }
}

/// Calls `run(offset)` for each page of the trial's bytes, again and again: nanoseconds of the best
/// round. What `run` returns is used, so that no compiler drops the work.
template <typename Run>
std::int64_t TimeTrial(Run run) noexcept {
  constexpr int kRounds = 24;  // the first warm the code up
  std::int64_t best = INT64_MAX;
  for (int round = 0; round < kRounds; round++) {
    const auto begin = std::chrono::steady_clock::now();
    for (std::size_t at = 0; at < kTrialBytes; at += kTrialPageBytes) {
      const std::uint64_t result = run(at);
      asm volatile("" : : "r"(result) : "memory");
    }
    const auto end = std::chrono::steady_clock::now();
    best = std::min<std::int64_t>(best, (end - begin).count());
  }
  return best;
}

}  // namespace pagelane::kernel
