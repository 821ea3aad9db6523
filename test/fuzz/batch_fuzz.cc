// Any bytes as a batch from the wire. Half of the inputs get sizes and a checksum that fit, so that
// what lies behind those checks is reached.

#include <algorithm>
#include <cstring>
#include <span>

#include "kernel/batch.h"
#include "kernel/batch_builder.h"
#include "kernel/limits.h"
#include "support.h"

using namespace pagelane::kernel;

namespace {

Scratch& Memory() {
  static Scratch scratch;
  return scratch;
}

/// Makes sizes, page bits and checksum fit, as far as the map allows.
void Mend(std::span<std::uint8_t> batch) {
  if (batch.size() < kBatchHeaderBytes) {
    return;
  }
  BatchHeader header = BatchHeader::Load(batch.data());
  header.page_bits = 10;
  header.flags &= kHeaderInside | kHeaderHasLastBlock;
  header.codec %= 3;
  const std::size_t room = batch.size() - kBatchHeaderBytes;
  header.map_bytes = std::min<std::uint32_t>(header.map_bytes & ~15U,
                                             static_cast<std::uint32_t>(room & ~std::size_t{15}));
  header.wire_bytes = static_cast<std::uint32_t>(room - header.map_bytes);
  if (header.codec == 0) {
    header.literal_bytes = header.wire_bytes;
  }
  header.Store(batch.data());
  const std::uint8_t* map = batch.data() + kBatchHeaderBytes;
  const std::uint8_t* wire = map + header.map_bytes;
  std::span<const std::uint8_t> literals(wire, header.wire_bytes);
  if (header.codec != 0) {
    if (header.literal_bytes > kLiteralBytesMax ||
        Memory().compressor().Decompress(static_cast<Codec>(header.codec), wire,
                                         header.wire_bytes, Memory().Literals(),
                                         header.literal_bytes) != Decompressed::kExact) {
      return;
    }
    literals = {Memory().Literals(), header.literal_bytes};
  }
  header.checksum = BatchChecksum(batch.data(), {map, header.map_bytes}, literals);
  header.Store(batch.data());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 1) {
    return 0;
  }
  static const std::unique_ptr<BlockTable> blocks = SmallBlocks();
  const std::size_t batch_bytes = size - 1;
  const std::unique_ptr<std::uint8_t[]> batch(new std::uint8_t[batch_bytes]);
  std::copy(data + 1, data + size, batch.get());
  if ((data[0] & 1) != 0) {
    Mend({batch.get(), batch_bytes});
  }
  const std::span<const std::uint8_t> wire(batch.get(), batch_bytes);
  const Target target{blocks.get(), (data[0] & 2) != 0, 2};
  DecodedBatch inspected;
  const Fault fault = InspectHead(target, wire, wire.size(), &inspected);
  const std::size_t output_bytes = fault ? 64 : inspected.output_bytes;
  Check(output_bytes <= 8 * kPayloadBytesMax, "output is bounded");
  const std::unique_ptr<std::uint8_t[]> output(new std::uint8_t[output_bytes]);
  DecodedBatch decoded;
  const Fault refused =
      DecodeBatch(target, wire, {output.get(), output_bytes}, Memory(), &decoded);
  Check(!fault || refused, "what inspection refuses, decoding refuses");
  if (!refused) {
    const auto end = static_cast<std::int64_t>(decoded.output_bytes);
    Check(decoded.output_bytes == inspected.output_bytes, "sizes agree");
    Check(decoded.last_record_end <= end && decoded.last_record <= decoded.last_record_end &&
              decoded.first_record <= decoded.last_record,
          "records are in the output");
  }
  return 0;
}

std::vector<std::vector<std::uint8_t>> Seeds() {
  std::vector<std::vector<std::uint8_t>> seeds;
  for (const Codec codec : {Codec::kNone, Codec::kLz4, Codec::kZstd}) {
    BatchBuilder builder(10);
    std::vector<std::uint8_t> slot(kSlotRoomBytes + 4096);
    std::uint8_t page[1024];
    std::memset(page, 5, sizeof page);
    builder.Begin(slot.data(), slot.size());
    builder.SetEntry(false, 1);
    builder.AddMark(EntryKind::kSectionBegin);
    builder.AddRaw(0, 1, false, page);
    builder.AddRaw(0, 2, false, page);
    builder.AddZero(0, 3, false);
    builder.AddZero(0, 4, false);
    builder.AddBlank(1, 0, false);
    const std::uint8_t xbzrle[] = {1, 0, 2, 8, 9};
    builder.AddForeign(EntryKind::kXbzrle, 1, 1, true, xbzrle, sizeof xbzrle);
    const std::uint8_t zlib[] = {0, 0, 0, 2, 8, 9};
    builder.AddForeign(EntryKind::kCompress, 0, 39, false, zlib, sizeof zlib);
    builder.AddMark(EntryKind::kSectionEnd);
    const SealedBatch sealed = builder.Seal();
    std::vector<std::uint8_t> out(slot.size());
    EncodedBatch encoded;
    EncodeBatch({slot.data() + sealed.start, sealed.end - sealed.start}, codec, 1,
                out.data() + sealed.start, Memory(), &encoded);
    const auto begin = (encoded.is_in_out ? out : slot).begin() +
                       static_cast<std::ptrdiff_t>(sealed.start);
    for (const std::uint8_t mode : {2, 3}) {
      std::vector<std::uint8_t> seed = {mode};
      seed.insert(seed.end(), begin, begin + static_cast<std::ptrdiff_t>(encoded.batch_bytes));
      seeds.push_back(seed);
    }
  }
  return seeds;
}
