#include "kernel/hash.h"

#include "support.h"

namespace kernel = pagelane::kernel;

namespace {

struct Vector {
  std::size_t byte_count;
  std::uint64_t seed;
  std::uint64_t hash;
};

constexpr std::uint64_t kGolden = 0x9E3779B185EBCA8D;

/// XXH3_64 as the reference library (libxxhash 0.8.1) gives it; byte i is 7i + 3.
constexpr Vector kVectors[] = {
    {0, 0, 0x2D06800538D394C2},          {0, kGolden, 0xA8A6B918B2F0364A},
    {1, 0, 0x13E608BC156DEFED},          {3, kGolden, 0xE485FD80DE485EAA},
    {8, 0, 0x60539DB630471163},          {16, kGolden, 0xDCFB75A78FE12C78},
    {17, 0, 0x714A04408E79B80F},         {128, kGolden, 0xED404FD74D6C438E},
    {129, 0, 0xC664BF3311C6ABC4},        {240, kGolden, 0x1CAD2A746A09581D},
    {241, 0, 0x8BEADD3A8874FE17},        {241, kGolden, 0xC38E7360F12E549A},
    {1024, 0, 0x9B81661C641C72B1},       {2048, 0, 0xABE604813BA62ED1},
    {2048, kGolden, 0x60847F8E3C9807C5},
};

}  // namespace

void TestHash() {
  CheckNoneIsMissing(kernel::HashVariants(), false);
  for (const kernel::HashVariant& variant : kernel::HashVariants()) {
    for (const Vector& vector : kVectors) {
      for (std::size_t offset = 0; offset < 65; offset++) {
        Bytes bytes(vector.byte_count, offset);
        for (std::size_t at = 0; at < vector.byte_count; at++) {
          bytes[at] = static_cast<std::uint8_t>(7 * at + 3);
        }
        CHECK(variant.hash(bytes.data(), vector.byte_count, vector.seed) == vector.hash);
      }
    }
    Random random(5);
    for (std::size_t byte_count = 0; byte_count < 70000; byte_count += 1 + byte_count / 7) {
      Bytes bytes(byte_count, random.Below(9));
      bytes.Randomize(random);
      const std::uint64_t seed = random.Below(2) == 0 ? 0 : random.Next();
      CHECK(variant.hash(bytes.data(), byte_count, seed) ==
            kernel::Hash64Portable(bytes.data(), byte_count, seed));
    }
  }
  CHECK(kernel::Hash64(nullptr, 0, 0) == kVectors[0].hash);
}
