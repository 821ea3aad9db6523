#include "kernel/bitmap.h"

#include <cstring>

#include "support.h"

namespace kernel = pagelane::kernel;

namespace {

struct Run {
  std::uint64_t first;
  std::uint64_t count;
};

bool IsSet(const Bytes& bytes, std::uint64_t bit) {
  return (const_cast<Bytes&>(bytes)[bit / 8] >> (bit % 8) & 1) != 0;
}

/// Bit by bit.
std::vector<Run> FindNaively(const Bytes& bytes, std::uint64_t from, std::uint64_t to) {
  std::vector<Run> runs;
  for (std::uint64_t bit = from; bit < to; bit++) {
    if (!IsSet(bytes, bit)) {
      continue;
    }
    if (runs.empty() || runs.back().first + runs.back().count != bit) {
      runs.push_back({bit, 0});
    }
    runs.back().count++;
  }
  return runs;
}

/// Sets runs of up to `longest` bits, `gap` apart on average.
void SetRuns(Bytes& bytes, Random& random, std::size_t longest, std::size_t gap) {
  std::size_t bit = random.Below(2 * gap);
  while (bit < 8 * bytes.size()) {
    for (std::size_t left = 1 + random.Below(longest); left > 0 && bit < 8 * bytes.size(); left--) {
      bytes[bit / 8] = static_cast<std::uint8_t>(bytes[bit / 8] | 1u << (bit % 8));
      bit++;
    }
    bit += 1 + random.Below(2 * gap);
  }
}

void CheckRange(const kernel::BitmapVariant& variant, const Bytes& bytes, std::uint64_t from,
                std::uint64_t to, std::size_t together) {
  const auto* words = reinterpret_cast<const std::uint64_t*>(const_cast<Bytes&>(bytes).data());
  const std::vector<Run> wanted = FindNaively(bytes, from, to);
  std::vector<double> runs(2 * together);
  std::size_t seen = 0;
  std::uint64_t bits = 0;
  std::uint64_t at = from;
  for (std::size_t found = together; found == together;) {
    found = kernel::FindRuns({words, at, to}, runs.data(), together, variant);
    CHECK(seen + found <= wanted.size());
    for (std::size_t i = 0; i < found; i++) {
      const Run& run = wanted[seen++];
      CHECK(runs[2 * i] == static_cast<double>(run.first));
      CHECK(runs[2 * i + 1] == static_cast<double>(run.count));
      at = run.first + run.count;
      bits += run.count;
      const kernel::BitPlace place = kernel::FindBit({words, from, to}, bits, variant);
      CHECK(place.end == at && place.bit_count == bits);
    }
  }
  CHECK(seen == wanted.size());
  CHECK(kernel::CountBits({words, from, to}, variant) == bits);
  const kernel::BitPlace none = kernel::FindBit({words, from, to}, bits + 1, variant);
  CHECK(none.end == to && none.bit_count == bits);
}

}  // namespace

void TestBitmap() {
  const auto& cpu = kernel::DetectCpu();
  CHECK(kernel::BitmapVariants().size() ==
        1u + (cpu.has_bits ? 1 : 0) + (cpu.has_avx512_bits ? 1 : 0));
  for (const kernel::BitmapVariant& variant : kernel::BitmapVariants()) {
    Random random(11);
    for (const std::size_t longest : {1, 2, 64, 3000}) {
      for (const std::size_t gap : {1, 3, 50, 1000}) {
        for (const std::size_t word_count : {1, 7, 128, 129, 300}) {
          Bytes bytes(8 * word_count);
          SetRuns(bytes, random, longest, gap);
          const std::uint64_t from = random.Below(64 * word_count);
          CheckRange(variant, bytes, 0, 64 * word_count, 1000);
          CheckRange(variant, bytes, from, from + random.Below(64 * word_count - from + 1),
                     1 + random.Below(5));
        }
      }
    }
  }
}
