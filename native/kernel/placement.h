#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

namespace pagelane::kernel {

/// Highest number of a processor, plus one. Source: Linux, arch/x86/Kconfig, NR_CPUS_RANGE_END.
inline constexpr std::size_t kProcessorsMax = 8192;

/// Processors, by their numbers.
class CpuSet {
 public:
  bool operator==(const CpuSet&) const noexcept = default;

  void Add(std::size_t processor) noexcept {
    words_[processor / kWordBits] |= 1ul << (processor % kWordBits);
  }
  bool Has(std::size_t processor) const noexcept {
    return ((words_[processor / kWordBits] >> (processor % kWordBits)) & 1) != 0;
  }
  bool is_empty() const noexcept { return words_ == Words{}; }

  /// Those that the calling thread may use. Returns 0 or errno.
  int ReadUsable() noexcept;
  /// Keeps the calling thread on these; those that do not exist are left out. Returns 0 or errno.
  int Pin() const noexcept;

 private:
  static constexpr std::size_t kWordBits = 8 * sizeof(unsigned long);
  using Words = std::array<unsigned long, kProcessorsMax / kWordBits>;
  Words words_{};
};

/// What of a thread the system has refused.
enum class ThreadStep : std::uint8_t { kNone, kStart, kPin, kNice };

/// What was refused, and errno.
struct Refusal {
  ThreadStep step = ThreadStep::kNone;
  int error = 0;
};

inline constexpr int kNiceMin = -20;
inline constexpr int kNiceMax = 19;

/// Where a thread runs and how much of the processor it gets beside others.
struct Placement {
  bool operator==(const Placement&) const noexcept = default;

  /// Places the calling thread.
  Refusal Apply() const noexcept;

  /// Empty: those of the thread that starts it.
  CpuSet cpus;
  /// kNiceMin..kNiceMax. Absent: that of the thread that starts it.
  std::optional<int> nice;
};

}  // namespace pagelane::kernel
