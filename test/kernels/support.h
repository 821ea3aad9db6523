#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <span>
#include <vector>

#include "kernel/cpu.h"

/// Ends the process if what must hold does not, in every build.
#define CHECK(holds)                                                                 \
  do {                                                                               \
    if (!(holds)) {                                                                  \
      std::fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #holds); \
      std::exit(1);                                                                  \
    }                                                                                \
  } while (false)

/* The tests, one for each kernel */
void TestZeroPage();
void TestFillPage();
void TestDelta();
void TestHostileDelta();
void TestSimilarity();
void TestHash();
void TestBitmap();

/// Sizes of pages that the protocol knows, and two that it does not.
inline constexpr std::size_t kPageSizes[] = {64,   1024, 1088,      2048,      4096,
                                             4160, 8192, 16 * 1024, 32 * 1024, 64 * 1024};

/// Random numbers that are the same for the same seed (splitmix64).
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}

  std::uint64_t Next() {
    state_ += 0x9E3779B97F4A7C15;
    std::uint64_t mixed = state_;
    mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9;
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB;
    return mixed ^ mixed >> 31;
  }
  std::size_t Below(std::size_t end) { return Next() % end; }

 private:
  std::uint64_t state_;
};

/// Bytes that begin `offset` bytes into memory of their own, which ends with them.
class Bytes {
 public:
  explicit Bytes(std::size_t byte_count, std::size_t offset = 0)
      : memory_(new std::uint8_t[offset + byte_count]()), offset_(offset), count_(byte_count) {}

  std::uint8_t* data() { return memory_.get() + offset_; }
  std::size_t size() const { return count_; }
  std::uint8_t& operator[](std::size_t at) { return memory_[offset_ + at]; }

  void Randomize(Random& random) {
    for (std::size_t at = 0; at < count_; at++) {
      data()[at] = static_cast<std::uint8_t>(random.Next());
    }
  }

 private:
  std::unique_ptr<std::uint8_t[]> memory_;
  std::size_t offset_;
  std::size_t count_;
};

/// Bytes between two pages that nobody may touch.
class GuardedBytes {
 public:
  explicit GuardedBytes(std::size_t byte_count_max);
  ~GuardedBytes();
  GuardedBytes(const GuardedBytes&) = delete;
  GuardedBytes& operator=(const GuardedBytes&) = delete;

  /// Right behind the first guard.
  std::uint8_t* AtBegin() { return begin_; }
  /// Right before the second, with room for `byte_count` bytes.
  std::uint8_t* AtEnd(std::size_t byte_count) { return begin_ + inner_bytes_ - byte_count; }

 private:
  std::uint8_t* begin_;
  std::size_t guard_bytes_;
  std::size_t inner_bytes_;
};

/// Checks that no variant that the processor can run failed its self-test.
template <typename Variant>
void CheckNoneIsMissing(std::span<const Variant> variants, bool has_neon_variant = true) {
  const auto& cpu = pagelane::kernel::DetectCpu();
  std::size_t wanted = 1;
  wanted += cpu.has_avx2 ? 1 : 0;
  wanted += cpu.has_avx512 ? 1 : 0;
  wanted += cpu.has_neon && has_neon_variant ? 1 : 0;
  CHECK(variants.size() == wanted);
}
