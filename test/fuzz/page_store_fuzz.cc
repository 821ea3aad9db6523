// Any bytes as a row of batches that one destination takes, so that a later one may refer to what
// an earlier one brought. An input is a byte that says how the stream is, then batches, each behind
// its length as u16.

#include <algorithm>

#include "batches.h"
#include "memory_twin.h"
#include "support.h"

using namespace pagelane::kernel;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 1) {
    return 0;
  }
  Destination& destination = Kept<Destination>();
  destination.Begin((data[0] & 1) != 0, true);
  MemoryTwin& twin = Kept<MemoryTwin>();
  twin.Begin(true);
  std::span<const std::uint8_t> rest(data + 1, size - 1);
  while (rest.size() >= 2) {
    const std::size_t stated = LoadLe<std::uint16_t>(rest.data());
    rest = rest.subspan(2);
    const std::size_t count = std::min(stated, rest.size());
    // A copy of the batch's own size: a sanitizer then sees every byte read past it.
    const std::unique_ptr<std::uint8_t[]> batch(new std::uint8_t[count]);
    std::copy_n(rest.begin(), count, batch.get());
    rest = rest.subspan(count);
    TakeTwice({batch.get(), count}, destination, twin);
  }
  return 0;
}

std::vector<Seed> Seeds() {
  Check(!PageStore(kPageBits, 0).is_usable(), "a store without slots is none");
  std::vector<Seed> seeds;
  for (const std::uint8_t codec : {0, 1, 2}) {
    Seed seed{"row-" + std::to_string(codec), {1}};
    Destination destination;
    destination.Begin(true, true);
    for (const std::vector<std::uint8_t>& batch : SampleRow(codec)) {
      Check(!destination.Take(batch), "a sample is taken");
      std::uint8_t length[2];
      StoreLe<std::uint16_t>(length, static_cast<std::uint16_t>(batch.size()));
      seed.bytes.insert(seed.bytes.end(), length, length + 2);
      seed.bytes.insert(seed.bytes.end(), batch.begin(), batch.end());
    }
    seeds.push_back(std::move(seed));
  }
  return seeds;
}
