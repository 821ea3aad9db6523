// Any bytes as the body of RAM sections: what the cutter uses of them, it must give back, and in
// however many chunks they come. If it holds pages that keep changing, the guest's memory must be
// the same in the end. Of an input, the first byte is the size of the chunks, the second is `Mode`.

#include <algorithm>
#include <span>

#include "kernel/bytes.h"
#include "kernel/qemu_format.h"
#include "kernel/qemu_ram.h"
#include "memory.h"
#include "support.h"

using namespace pagelane::kernel;

namespace {

constexpr std::size_t kSlotBytesMax = kSlotRoomBytes + 64 * 1024;
constexpr std::size_t kInputBytesMax = 60 * 1024;

enum Mode : std::uint8_t {
  kMarksSections = 1,  // the next section begins in the batch of the last
  kLongBatches = 2,
  kHolds = 4,
  kReleases = 8,  // at the end of each section, what is held
  kReaches = 16,  // no batch farther than three pages, and ten from the first to the last
};

/// One block long enough that a batch of its pages reaches a limit, and one of two pages.
std::unique_ptr<BlockTable> LongBlocks() {
  auto blocks = std::make_unique<BlockTable>(kPageBits);
  blocks->Add("a", 8200 * kPageBytes);
  blocks->Add("pc.bios", 2 * kPageBytes);
  return blocks;
}

/// Cuts a stream and writes it again from the batches.
class Carrier {
 public:
  Carrier()
      : cutter_(kPageBits), destination_(LongBlocks()), slot_(new std::uint8_t[kSlotBytesMax]) {}

  /// Begins a stream. False if there is no memory for it.
  bool Begin(std::uint8_t mode) {
    mode_ = mode;
    slot_bytes_ = (mode & kLongBatches) != 0 ? kSlotBytesMax : cutter_.SlotBytesMin();
    memory_.Clear();
    is_broken_ = false;
    used_bytes_ = 0;
    begins_.clear();
    output_.clear();
    if (!cutter_.is_usable()) {
      Check(allocation_failed, "memory for a cutter");
      return false;
    }
    if (cutter_.has_slot()) {
      cutter_.Seal();
    }
    cutter_.ForgetHeld();
    if (!cutter_.SetBlocks(LongBlocks())) {
      Check(allocation_failed, "memory for bitmaps");
      return false;
    }
    cutter_.SetInside(true);
    cutter_.SetHolding((mode & kHolds) != 0);
    cutter_.SetReach((mode & kReaches) != 0 ? 3 : 0, 10);
    cutter_.Begin(slot_.get(), slot_bytes_);
    destination_.Begin(false, false);
    return true;
  }

  /// Takes a chunk; false if the stream cannot be read on.
  bool Push(std::span<const std::uint8_t> chunk) {
    while (true) {
      const CutResult result = cutter_.Cut(chunk);
      Check(result.used_bytes <= chunk.size(), "uses no more than there is");
      chunk = chunk.subspan(result.used_bytes);
      used_bytes_ += result.used_bytes;
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
          EndSection();
          break;
        case CutStop::kUnknown:
        case CutStop::kBadPage:
          Finish();
          return false;
      }
    }
  }

  void Finish() {
    Release();
    Carry();
    const std::span<const std::uint8_t> held = cutter_.held();
    output_.insert(output_.end(), held.begin(), held.end());
    cutter_.ForgetHeld();
  }

  bool is_broken() const { return is_broken_; }
  std::size_t used_bytes() const { return used_bytes_; }
  const Memory& memory() const { return memory_; }

  /// What came out; the marks of sections that were not in the stream are left out.
  std::vector<std::uint8_t> Output() const {
    std::vector<std::uint8_t> output;
    auto from = output_.begin();
    std::size_t written = 0;
    for (const std::size_t begin : begins_) {
      output.insert(output.end(), from, from + static_cast<std::ptrdiff_t>(begin - written));
      from += static_cast<std::ptrdiff_t>(begin - written);
      const std::uint8_t mark[] = {kSectionPart, 0, 0, 0, kSectionId};
      Check(std::equal(std::begin(mark), std::end(mark), from), "a section begins where it did");
      from += kSectionMarkBytes;
      written = begin;
    }
    output.insert(output.end(), from, output_.end());
    return output;
  }

 private:
  void Release() {
    while (true) {
      switch (cutter_.Release()) {
        case CutStop::kPageAgain:
          Carry();
          cutter_.BeginEpoch();
          break;
        case CutStop::kBatchFull:
          Carry();
          break;
        default:
          Check(cutter_.held_page_count() == 0, "all pages are released");
          return;
      }
    }
  }

  void EndSection() {
    if ((mode_ & kReleases) != 0) {
      Release();
    }
    if ((mode_ & kMarksSections) == 0) {
      Carry();
      output_.insert(output_.end(), {0, 0, 0, 0, 0, 0, 0, 0x10});
      return;
    }
    while (!cutter_.MarkSectionEnd()) {
      Carry();
    }
    while (!cutter_.MarkSectionBegin()) {
      Carry();
    }
    begins_.push_back(used_bytes_);
  }

  void Carry() {
    const SealedBatch sealed = cutter_.Seal();
    const std::vector<std::uint8_t> batch =
        Encode({slot_.get(), slot_bytes_}, sealed, EncodeOptions{}, scratch_);
    if (batch.empty() || destination_.Take(batch)) {
      Check(allocation_failed, "a batch that was cut is decoded");
      is_broken_ = true;
    } else {
      const std::span<const std::uint8_t> records = destination_.output();
      output_.insert(output_.end(), records.begin(), records.end());
      if ((mode_ & kHolds) != 0) {
        memory_.Apply(destination_);
      }
    }
    cutter_.Begin(slot_.get(), slot_bytes_);
  }

  RamCutter cutter_;
  Destination destination_;
  std::unique_ptr<std::uint8_t[]> slot_;
  std::size_t slot_bytes_ = kSlotBytesMax;
  Scratch scratch_;
  std::uint8_t mode_ = 0;
  Memory memory_;  // if pages are held
  bool is_broken_ = false;
  std::size_t used_bytes_ = 0;
  std::vector<std::size_t> begins_;  // where in the stream a section was begun
  std::vector<std::uint8_t> output_;
};

struct Carriers {
  Carrier whole;
  Carrier pieces;
};

/// Without holding, what came out is what went in.
void CheckBytes(const Carrier& whole, const Carrier& pieces,
                std::span<const std::uint8_t> stream) {
  const std::vector<std::uint8_t> all = whole.Output();
  const std::vector<std::uint8_t> parts = pieces.Output();
  Check(all.size() <= stream.size(), "gives back no more than it used");
  Check(std::equal(all.begin(), all.end(), stream.begin()), "gives back what it used");
  // In pieces, the beginning of a record that is not understood is held, and given back as well.
  Check(parts.size() >= all.size() && parts.size() <= stream.size(), "pieces give back as much");
  Check(std::equal(parts.begin(), parts.end(), stream.begin()),
        "pieces give back what was used");
}

/// With holding, it leaves the guest's memory as it was to be.
void CheckMemory(const Carrier& whole, const Carrier& pieces,
                 std::span<const std::uint8_t> stream) {
  Memory memory;
  memory.Apply(*LongBlocks(), stream.first(whole.used_bytes()), -1);
  Check(whole.memory() == memory, "memory is as it was to be");
  Check(pieces.memory() == memory, "and in pieces");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2 || size > kInputBytesMax) {
    return 0;
  }
  const std::size_t step = 1 + data[0];
  const std::span<const std::uint8_t> stream(data + 2, size - 2);
  Carriers& carriers = Kept<Carriers>();
  Carrier& whole = carriers.whole;
  Carrier& pieces = carriers.pieces;
  if (!whole.Begin(data[1]) || !pieces.Begin(data[1])) {
    return 0;
  }
  if (whole.Push(stream)) {
    whole.Finish();
  }
  bool goes_on = true;
  for (std::size_t at = 0; at < stream.size() && goes_on; at += step) {
    goes_on = pieces.Push(stream.subspan(at, std::min(step, stream.size() - at)));
  }
  if (goes_on) {
    pieces.Finish();
  }
  if (whole.is_broken() || pieces.is_broken()) {
    return 0;
  }
  if ((data[1] & kHolds) == 0) {
    CheckBytes(whole, pieces, stream);
  } else {
    CheckMemory(whole, pieces, stream);
  }
  return 0;
}

namespace {

/// Writes records one after another.
class StreamWriter {
 public:
  StreamWriter(std::uint8_t step, std::uint8_t mode) : bytes_{step, mode} {}

  StreamWriter& Put(std::uint64_t header, const char* name,
                    std::initializer_list<std::uint8_t> head, std::size_t count,
                    std::uint8_t fill) {
    std::uint8_t be[8];
    StoreBe64(be, header | (name == nullptr ? kRamFlagContinue : 0));
    bytes_.insert(bytes_.end(), be, be + 8);
    if (name != nullptr) {
      const std::string_view text = name;
      bytes_.push_back(static_cast<std::uint8_t>(text.size()));
      bytes_.insert(bytes_.end(), text.begin(), text.end());
    }
    bytes_.insert(bytes_.end(), head);
    bytes_.insert(bytes_.end(), count, fill);
    return *this;
  }

  StreamWriter& Zero(std::uint64_t page, const char* name = nullptr) {
    return Put(page << kPageBits | kRamFlagZero, name, {}, 1, 0);
  }

  StreamWriter& Page(std::uint64_t page, std::uint8_t fill, const char* name = nullptr) {
    return Put(page << kPageBits | kRamFlagPage, name, {}, kPageBytes, fill);
  }

  StreamWriter& End() {
    bytes_.insert(bytes_.end(), {0, 0, 0, 0, 0, 0, 0, kRamFlagEos});
    return *this;
  }

  const std::vector<std::uint8_t>& bytes() const { return bytes_; }

 private:
  std::vector<std::uint8_t> bytes_;
};

StreamWriter AllKinds(std::uint8_t step, std::uint8_t mode) {
  StreamWriter stream(step, mode);
  stream.Page(0, 3, "a").Page(1, 0).Zero(2).Zero(3, "a");
  stream.Put(4 << kPageBits | kRamFlagXbzrle, "pc.bios", {1, 0, 5}, 5, 9);
  stream.Zero(1, "pc.bios").Zero(9, "a");
  stream.Put(0 << kPageBits | kRamFlagXbzrle, "pc.bios", {1, 0, 5}, 5, 9);
  stream.Put(5 << kPageBits | kRamFlagCompress, "a", {0, 0, 0, 7}, 7, 9);
  return stream;
}

/// A page that comes again and again, among others.
StreamWriter Often(std::uint8_t mode) {
  StreamWriter stream(77, mode);
  stream.Page(3, 1, "a").Page(3, 2).Zero(9).Page(3, 3).Page(3, 4).Zero(9).Page(4, 4).Page(4, 5);
  return stream;
}

/// As many entries as a map has, in one batch: every other page.
StreamWriter MapFull() {
  StreamWriter stream(200, kMarksSections);
  BatchBuilder builder(kPageBits);
  std::vector<std::uint8_t> slot(builder.SlotBytesMin());
  builder.Begin(slot.data(), slot.size());
  for (std::uint64_t page = 0; builder.FitsZero(); page += 2) {
    builder.AddZero(0, page, false);
    stream.Zero(page, page == 0 ? "a" : nullptr);
  }
  return stream;
}

}  // namespace

std::vector<Seed> Seeds() {
  const std::uint64_t xbzrle = kRamFlagXbzrle;
  const std::uint64_t zlib = kRamFlagCompress;
  std::vector<Seed> seeds = {
      {"all-kinds", StreamWriter(AllKinds(6, 0)).bytes()},
      {"page-again", StreamWriter(40, 0).Zero(1, "a").Page(2, 1).End().Zero(1).Page(2, 2).bytes()},
      {"sections", StreamWriter(3, 1).Zero(1, "a").End().Zero(2).End().End().Zero(2).bytes()},
      {"batch-full", StreamWriter(250, 0).Page(1, 1, "a").Page(2, 2).Page(3, 3).bytes()},
      {"batch-full-foreign",
       StreamWriter(9, 0).Page(1, 1, "a").Page(2, 2).Put(xbzrle, nullptr, {1, 0, 5}, 5, 9).bytes()},
      {"bytewise", StreamWriter(0, 0).Zero(1, "a").Put(zlib, nullptr, {0, 0, 0, 1}, 1, 7).bytes()},
      {"unknown-fill", StreamWriter(4, 0).Put(kRamFlagZero, "a", {}, 1, 7).bytes()},
      {"unknown-flag", StreamWriter(4, 0).Zero(1, "a").Put(0x80, "a", {}, 9, 7).bytes()},
      {"unknown-xbzrle", StreamWriter(4, 0).Put(xbzrle, "a", {2, 0, 5}, 5, 7).bytes()},
      {"unknown-zlib", StreamWriter(4, 0).Put(zlib, "a", {0, 1, 0, 0}, 5, 7).bytes()},
      {"bad-page", StreamWriter(4, 0).Zero(1, "pc.bios").Zero(2).bytes()},
      {"bad-block", StreamWriter(4, 0).Zero(1, "b").bytes()},
      {"fill", StreamWriter(99, 0).Put(kRamFlagPage, "a", {}, kPageBytes, 7).bytes()},
      {"held", Often(kHolds).bytes()},
      {"held-sections", Often(kHolds | kMarksSections | kReleases).End().Page(3, 9).bytes()},
      {"held-zero", Often(kHolds).Zero(3).Page(3, 4).End().bytes()},
      {"held-foreign", Often(kHolds).Put(xbzrle, nullptr, {1, 0, 5}, 5, 9).Page(3, 7).bytes()},
      {"held-full-1", Often(kHolds).Page(5, 5).Put(xbzrle, nullptr, {1, 0, 5}, 5, 9).bytes()},
      {"held-full-2",
       Often(kHolds).Page(5, 5).Page(6, 6).Put(xbzrle, nullptr, {1, 0, 5}, 5, 9).bytes()},
      {"reach", StreamWriter(80, kReaches).Zero(1, "a").Page(2, 1).Zero(30).Zero(3).Zero(4).bytes()},
      {"reach-full",
       StreamWriter(9, kReaches).Zero(1, "a").Zero(2).Zero(3).Zero(4).Zero(0, "pc.bios").bytes()},
      {"no-block", StreamWriter(4, 0).Zero(1).bytes()},
      {"map-full", MapFull().Zero(1).bytes()},
      {"map-full-end", MapFull().End().bytes()},
  };
  return seeds;
}
