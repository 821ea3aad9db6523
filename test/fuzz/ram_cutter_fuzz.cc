// Any bytes as the body of RAM sections: what the cutter uses of them, it must give back, and in
// however many chunks they come.

#include <algorithm>
#include <span>

#include "kernel/batch.h"
#include "kernel/bytes.h"
#include "kernel/qemu_format.h"
#include "kernel/qemu_ram.h"
#include "support.h"

using namespace pagelane::kernel;

namespace {

constexpr std::size_t kSlotBytes = kSlotRoomBytes + 4096;

/// Cuts a stream and writes it again from the batches.
class Carrier {
 public:
  Carrier() : cutter_(10), blocks_(SmallBlocks()), slot_(new std::uint8_t[kSlotBytes]) {
    Check(cutter_.SetBlocks(SmallBlocks()), "memory for bitmaps");
    cutter_.SetInside(true);
    cutter_.Begin(slot_.get(), kSlotBytes);
  }

  /// Takes a chunk; false if the stream cannot be read on.
  bool Push(std::span<const std::uint8_t> chunk) {
    while (true) {
      const CutResult result = cutter_.Cut(chunk);
      Check(result.used_bytes <= chunk.size(), "uses no more than there is");
      chunk = chunk.subspan(result.used_bytes);
      switch (result.stop) {
        case CutStop::kInput:
          Check(chunk.empty(), "all of the chunk is used");
          return true;
        case CutStop::kPageAgain:
          Carry();
          cutter_.BeginEpoch();
          break;
        case CutStop::kBatchFull:
          Check(cutter_.BatchEntries() > 0, "an empty batch is never full");
          Carry();
          break;
        case CutStop::kSectionEnd:
          Carry();
          output_.insert(output_.end(), {0, 0, 0, 0, 0, 0, 0, 0x10});
          break;
        case CutStop::kUnknown:
        case CutStop::kBadPage:
          Finish();
          return false;
      }
    }
  }

  void Finish() {
    Carry();
    const std::span<const std::uint8_t> held = cutter_.held();
    output_.insert(output_.end(), held.begin(), held.end());
    cutter_.ForgetHeld();
  }

  const std::vector<std::uint8_t>& output() const { return output_; }

 private:
  void Carry() {
    const SealedBatch sealed = cutter_.Seal();
    Check(sealed.end <= kSlotBytes, "the batch is in its slot");
    const std::span<std::uint8_t> batch(slot_.get() + sealed.start, sealed.end - sealed.start);
    EncodedBatch encoded;
    Check(!EncodeBatch(batch, Codec::kNone, 0, nullptr, scratch_, &encoded), "encodes");
    const Target target{blocks_.get(), true, 2};
    DecodedBatch decoded;
    Check(!InspectHead(target, batch, batch.size(), &decoded), "passes its own checks");
    std::vector<std::uint8_t> records(decoded.output_bytes);
    Check(!DecodeBatch(target, batch, records, scratch_, &decoded), "decodes");
    output_.insert(output_.end(), records.begin(), records.end());
    cutter_.Begin(slot_.get(), kSlotBytes);
  }

  RamCutter cutter_;
  std::unique_ptr<BlockTable> blocks_;
  std::unique_ptr<std::uint8_t[]> slot_;
  Scratch scratch_;
  std::vector<std::uint8_t> output_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 1) {
    return 0;
  }
  const std::size_t step = 1 + data[0] % 97;
  const std::span<const std::uint8_t> stream(data + 1, size - 1);

  Carrier whole;
  if (whole.Push(stream)) {
    whole.Finish();
  }
  Carrier pieces;
  bool goes_on = true;
  for (std::size_t at = 0; at < stream.size() && goes_on; at += step) {
    goes_on = pieces.Push(stream.subspan(at, std::min(step, stream.size() - at)));
  }
  if (goes_on) {
    pieces.Finish();
  }
  Check(whole.output().size() <= stream.size(), "gives back no more than it used");
  Check(std::equal(whole.output().begin(), whole.output().end(), stream.begin()),
        "gives back what it used");
  // In pieces, the beginning of a record that is not understood is held, and given back as well.
  Check(pieces.output().size() >= whole.output().size() &&
            pieces.output().size() <= stream.size(),
        "pieces give back as much");
  Check(std::equal(pieces.output().begin(), pieces.output().end(), stream.begin()),
        "pieces give back what was used");
  return 0;
}

std::vector<std::vector<std::uint8_t>> Seeds() {
  std::vector<std::uint8_t> stream = {7};
  const auto put = [&stream](std::uint64_t header, bool names, std::size_t count,
                             std::initializer_list<std::uint8_t> head, std::uint8_t fill) {
    std::uint8_t bytes[8];
    StoreBe64(bytes, header | (names ? 0 : kRamFlagContinue));
    stream.insert(stream.end(), bytes, bytes + 8);
    if (names) {
      stream.insert(stream.end(), {1, 'a'});
    }
    stream.insert(stream.end(), head);
    stream.insert(stream.end(), count, fill);
  };
  put(kRamFlagPage, true, 1024, {}, 3);
  put(0x400 | kRamFlagPage, false, 1024, {}, 0);
  put(0x800 | kRamFlagZero, false, 1, {}, 0);
  put(0xc00 | kRamFlagZero, false, 1, {}, 0);
  put(0x1000 | kRamFlagXbzrle, true, 5, {1, 0, 5}, 9);
  put(0x1400 | kRamFlagCompress, false, 7, {0, 0, 0, 7}, 9);
  stream.insert(stream.end(), {0, 0, 0, 0, 0, 0, 0, 0x10});
  put(0x800 | kRamFlagZero, false, 1, {}, 0);
  put(0x800 | kRamFlagPage, false, 1024, {}, 1);
  return {stream};
}
