// Runs a fuzz target without clang: replays files, or mutates seeds blindly.
//
//   g++ -std=c++20 -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined
//       -Inative -Itest/fuzz -DXXH_INLINE_ALL test/fuzz/batch_fuzz.cc test/fuzz/driver.cc
//       native/kernel/*.cc -l:liblz4.a -l:libzstd.a -lpthread -o .build/batch_fuzz
//   .build/batch_fuzz <seed> <seconds> | .build/batch_fuzz <file>…
//
// With clang, leave this file out and add -fsanitize=fuzzer.

#include <chrono>
#include <cstring>
#include <fstream>
#include <iterator>
#include <random>

#include "support.h"

namespace {

using Bytes = std::vector<std::uint8_t>;

constexpr std::uint64_t kEdges[] = {0,          1,          2,           0xff,        0x7f,
                                    0x10,       0x20,       0x28,        0x7fff,      0x8000,
                                    0xffff,     0x10000,    0x100000,    0x7fffffff,  0x80000000,
                                    0xffffffff, 1ULL << 52, 1ULL << 63,  ~0ULL,       4096};

void Mutate(Bytes& input, std::mt19937_64& random) {
  for (auto left = 1 + random() % 4; left > 0 && !input.empty(); left--) {
    const std::size_t at = random() % input.size();
    switch (random() % 6) {
      case 0:
        input[at] ^= static_cast<std::uint8_t>(1U << (random() % 8));
        break;
      case 1:
        input[at] = static_cast<std::uint8_t>(random());
        break;
      case 2: {
        const std::uint64_t edge = kEdges[random() % std::size(kEdges)] + random() % 3 - 1;
        const std::size_t width = std::min<std::size_t>(1ULL << (random() % 4), input.size() - at);
        std::memcpy(input.data() + at, &edge, width);
        break;
      }
      case 3:
        input.resize(at);
        break;
      case 4: {
        const std::size_t count = std::min<std::size_t>(1 + random() % 64, input.size() - at);
        const Bytes piece(input.begin() + static_cast<std::ptrdiff_t>(at),
                          input.begin() + static_cast<std::ptrdiff_t>(at + count));
        const std::size_t to = random() % input.size();
        input.insert(input.begin() + static_cast<std::ptrdiff_t>(to), piece.begin(), piece.end());
        break;
      }
      default: {
        const std::size_t count = std::min<std::size_t>(1 + random() % 16, input.size() - at);
        input.erase(input.begin() + static_cast<std::ptrdiff_t>(at),
                    input.begin() + static_cast<std::ptrdiff_t>(at + count));
      }
    }
  }
}

void Run(const Bytes& input) {
  // A buffer of exactly the input's size: a sanitizer then sees every byte read past it.
  const std::unique_ptr<std::uint8_t[]> exact(new std::uint8_t[input.size()]);
  std::copy(input.begin(), input.end(), exact.get());
  LLVMFuzzerTestOneInput(exact.get(), input.size());
}

int Replay(int count, char** files) {
  for (int i = 0; i < count; i++) {
    std::ifstream file(files[i], std::ios::binary);
    Run(Bytes(std::istreambuf_iterator<char>(file), {}));
  }
  std::printf("replayed %d\n", count);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  char* end = nullptr;
  const std::uint64_t seed = argc == 3 ? std::strtoull(argv[1], &end, 10) : 0;
  if (argc != 3 || *end != '\0') {
    return Replay(argc - 1, argv + 1);
  }
  std::mt19937_64 random(seed);
  std::vector<Bytes> inputs = Seeds();
  const std::size_t seed_count = inputs.size();
  const auto stop = std::chrono::steady_clock::now() + std::chrono::seconds(std::atoi(argv[2]));
  std::uint64_t runs = 0;
  for (; std::chrono::steady_clock::now() < stop; runs++) {
    Bytes input = inputs[random() % inputs.size()];
    Mutate(input, random);
    Run(input);
    // A pool of mutated inputs, so that changes add up; never in place of a seed.
    if (inputs.size() < seed_count + 200) {
      inputs.push_back(std::move(input));
    } else if (random() % 8 == 0) {
      inputs[seed_count + random() % 200] = std::move(input);
    }
  }
  std::printf("seed %llu: %llu runs\n", static_cast<unsigned long long>(seed),
              static_cast<unsigned long long>(runs));
  return 0;
}
