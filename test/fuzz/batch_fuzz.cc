// Any bytes as a batch from the wire. The first byte of an input says whether its sections have
// footers, whether there is a store, and whether memory is lost; the rest is the batch. The mutator
// makes sizes and checksums fit.

#include "batches.h"
#include "memory_twin.h"
#include "mend.h"
#include "support.h"

using namespace pagelane::kernel;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 1) {
    return 0;
  }
  Destination& destination = Kept<Destination>();
  const bool has_store = (data[0] & 2) == 0;
  destination.Begin((data[0] & 1) != 0, has_store, SampleStore());
  MemoryTwin& twin = Kept<MemoryTwin>();
  twin.Begin(has_store, (data[0] & 4) != 0);
  TakeTwice({data + 1, size - 1}, destination, twin);
  return 0;
}

namespace {

/// A batch without its counts and its checksum gets them back: else mutators would do little.
void CheckMending(const std::vector<std::uint8_t>& batch, Destination& destination) {
  destination.Begin(false, true, SampleStore());
  const std::span<const std::uint8_t> stored = destination.stored();
  BatchParts parts;
  Check(TakeApart(batch, stored, &parts), "a sample can be taken apart");
  BatchHeader header = BatchHeader::Load(parts.header.data());
  header.page_count++;
  header.checksum++;
  header.Store(parts.header.data());
  std::vector<std::uint8_t> mended = PutTogether(parts, stored);
  MendChecksum(mended, destination);
  Check(mended == batch, "a sample can be mended");
}

}  // namespace

std::vector<Seed> Seeds() {
  std::vector<Seed> seeds;
  Destination destination;
  for (const NamedBatch& batch : SampleBatches()) {
    CheckMending(batch.bytes, destination);
    for (const std::uint8_t way : {0, 1, 4}) {
      Seed seed{batch.name + "-" + std::to_string(way), {way}};
      seed.bytes.insert(seed.bytes.end(), batch.bytes.begin(), batch.bytes.end());
      seeds.push_back(std::move(seed));
    }
  }
  return seeds;
}
