// What memory itself allows, and the kernels on the same memory, with no JavaScript around.
//
//     memory KiB small|huge     the page size that is asked of Linux
//
// Reads lines of a command, a word and a number of rounds, and answers each with the nanoseconds of
// the median round:
//
//     pages zero|half|mixed|full   sets which pages are zero: all, every second, half of them at
//                                  random, none
//     read                      reads all of it, with the widest loads that are fastest
//     copy                      copies all of it to 256 MiB, as often as that takes
//     scan VARIANT              marks the zero pages in a bitmap
//     fill, apply, similarity, hash VARIANT
//                               on every page, in place
//     delta VARIANT             on the pages of the second half; their bases are in the first
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "kernel/cpu.h"
#include "kernel/delta.h"
#include "kernel/fill_page.h"
#include "kernel/hash.h"
#include "kernel/similarity.h"
#include "kernel/zero_page.h"

#if defined(__x86_64__)
#define WITH_AVX2 __attribute__((target("avx2")))
#define WITH_AVX512 __attribute__((target("avx512f")))
#endif

namespace kernel = pagelane::kernel;

namespace {

constexpr std::size_t kPageBytes = 4096;
constexpr std::size_t kCopyBytes = std::size_t{256} << 20;

template <typename Value>
void Keep(const Value& value) {
  asm volatile("" : : "m"(value) : "memory");
}

std::int64_t TimeOf(const std::function<void()>& run) {
  const auto begin = std::chrono::steady_clock::now();
  run();
  return std::chrono::nanoseconds(std::chrono::steady_clock::now() - begin).count();
}

/// All bytes ORed, with vectors of `kBytes`.
#define DEFINE_READ(Name, kBytes, Target)                                          \
  Target void Name(const std::uint8_t* bytes, std::size_t byte_count) {            \
    using Vector = std::uint64_t __attribute__((vector_size(kBytes)));             \
    Vector sums[4] = {};                                                           \
    for (std::size_t at = 0; at < byte_count; at += 4 * kBytes) {                  \
      for (std::size_t i = 0; i < 4; i++) {                                        \
        sums[i] |= *reinterpret_cast<const Vector*>(bytes + at + i * kBytes);      \
      }                                                                            \
    }                                                                              \
    Vector all = sums[0] | sums[1] | sums[2] | sums[3];                            \
    Keep(all);                                                                     \
  }

DEFINE_READ(Read16, 16, )
#if defined(__x86_64__)
DEFINE_READ(Read32, 32, WITH_AVX2)
DEFINE_READ(Read64, 64, WITH_AVX512)
#endif

using Reader = void (*)(const std::uint8_t* bytes, std::size_t byte_count);

Reader FastestReader(const std::uint8_t* bytes, std::size_t byte_count) {
  std::vector<Reader> readers = {Read16};
#if defined(__x86_64__)
  if (kernel::DetectCpu().has_avx2) readers.push_back(Read32);
  if (kernel::DetectCpu().has_avx512) readers.push_back(Read64);
#endif
  Reader fastest = nullptr;
  std::int64_t best = INT64_MAX;
  for (Reader reader : readers) {
    for (int round = 0; round < 3; round++) {
      const std::int64_t taken = TimeOf([&] { reader(bytes, byte_count); });
      if (taken < best) {
        best = taken;
        fastest = reader;
      }
    }
  }
  return fastest;
}

std::uint8_t* Map(std::size_t byte_count, bool is_huge) {
  void* memory = mmap(nullptr, byte_count, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    std::perror("mmap");
    std::exit(1);
  }
  madvise(memory, byte_count, is_huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
  auto* bytes = static_cast<std::uint8_t*>(memory);
  std::memset(bytes, 1, byte_count);
  return bytes;
}

/// Words that look like a heap's, all but a dozen equal in any two pages; zero as `kind` says.
void SetPages(std::uint8_t* memory, std::size_t byte_count, const std::string& kind) {
  std::uint64_t random = 1;
  for (std::size_t page = 0; page * kPageBytes < byte_count; page++) {
    random = random * 6364136223846793005 + 1442695040888963407;
    const bool is_zero = kind == "zero" || (kind == "half" && page % 2 == 0) ||
                         (kind == "mixed" && (random >> 63) == 0);
    std::uint64_t words[kPageBytes / 8] = {};
    for (std::size_t i = 0; !is_zero && i < kPageBytes / 8; i++) {
      words[i] = 0x7F0000000000 + i * 0x9E3779B9;
    }
    for (std::size_t i = 0; !is_zero && i < 6; i++) {
      words[(random >> (9 * i)) % 512] ^= random | 1;
    }
    std::memcpy(memory + page * kPageBytes, words, kPageBytes);
  }
}

template <typename Variant>
const Variant& Find(std::span<const Variant> variants, const std::string& name) {
  for (const Variant& variant : variants) {
    if (name == variant.name) return variant;
  }
  std::fprintf(stderr, "there is no variant %s\n", name.c_str());
  std::exit(1);
}

class Memory {
 public:
  Memory(std::size_t byte_count, bool is_huge)
      : byte_count_(byte_count),
        bytes_(Map(byte_count, is_huge)),
        copy_(Map(kCopyBytes, is_huge)),
        bitmap_((byte_count / kPageBytes + 31) / 32),
        read_(FastestReader(bytes_, byte_count)) {}

  void Run(const std::string& command, const std::string& word) {
    if (command == "pages") SetPages(bytes_, byte_count_, word);
    if (command == "read") read_(bytes_, byte_count_);
    if (command == "copy") Copy();
    if (command == "scan") Scan(word);
    if (command == "fill") {
      const auto test = Find(kernel::FillPageVariants(), word).test;
      ForEachPage([&](auto* page) { Keep(kernel::IsFillPage(page, kPageBytes, test)); });
    }
    if (command == "delta") Delta(word);
    if (command == "apply") Apply();
    if (command == "similarity") {
      const auto find = Find(kernel::SimilarityVariants(), word).find;
      std::array<std::uint32_t, kernel::kFeatures> features;
      ForEachPage([&](auto* page) {
        find(page, kPageBytes, features.data());
        Keep(features);
      });
    }
    if (command == "hash") {
      const auto hash = Find(kernel::HashVariants(), word).hash;
      ForEachPage([&](auto* page) { Keep(hash(page, kPageBytes, 0)); });
    }
  }

 private:
  template <typename Visit>
  void ForEachPage(Visit visit) {
    for (std::size_t at = 0; at < byte_count_; at += kPageBytes) visit(bytes_ + at);
  }

  void Copy() {
    for (std::size_t at = 0; at < byte_count_; at += kCopyBytes) {
      std::memcpy(copy_, bytes_ + at, std::min(kCopyBytes, byte_count_ - at));
      Keep(copy_[0]);
    }
  }

  void Scan(const std::string& variant) {
    const auto test = Find(kernel::ZeroPageVariants(), variant).test;
    Keep(kernel::FindZeroPages(bytes_, byte_count_ / kPageBytes, kPageBytes, bitmap_, test));
  }

  void Delta(const std::string& variant) {
    const auto find = Find(kernel::DeltaVariants(), variant).find;
    const std::uint8_t* pages = bytes_ + byte_count_ / 2;
    for (std::size_t at = 0; at < byte_count_ / 2; at += kPageBytes) {
      Keep(kernel::EncodeDelta(bytes_ + at, pages + at, kPageBytes, delta_, sizeof delta_, find));
    }
  }

  /// The same delta to every page.
  void Apply() {
    const kernel::DeltaResult delta =
        kernel::EncodeDelta(bytes_, bytes_ + kPageBytes, kPageBytes, delta_, sizeof delta_);
    ForEachPage([&](auto* page) {
      Keep(kernel::ApplyDelta(delta_, delta.bytes, page, kPageBytes));
    });
  }

  std::size_t byte_count_;
  std::uint8_t* bytes_;
  std::uint8_t* copy_;
  std::vector<std::uint32_t> bitmap_;
  Reader read_;
  std::uint8_t delta_[2 * kPageBytes] = {};
};

}  // namespace

int main(int argument_count, char** arguments) {
  if (argument_count != 3) {
    std::fprintf(stderr, "usage: memory KiB small|huge\n");
    return 2;
  }
  const std::size_t byte_count = std::strtoull(arguments[1], nullptr, 10) << 10;
  Memory memory(byte_count, std::string(arguments[2]) == "huge");
  std::string line;
  while (std::getline(std::cin, line)) {
    std::istringstream words(line);
    std::string command;
    std::string word;
    std::size_t rounds = 1;
    words >> command >> word >> rounds;
    std::vector<std::int64_t> taken(std::max<std::size_t>(rounds, 1));
    for (std::int64_t& each : taken) {
      each = TimeOf([&] { memory.Run(command, word); });
    }
    std::sort(taken.begin(), taken.end());
    std::cout << taken[taken.size() / 2] << std::endl;
  }
}
