#include "batches.h"

#include <algorithm>
#include <functional>

#include "support.h"

using namespace pagelane::kernel;

namespace {

constexpr Codec kCodecs[] = {Codec::kNone, Codec::kLz4, Codec::kZstd};
constexpr const char* kCodecNames[] = {"plain", "lz4", "zstd"};

using Bytes = std::vector<std::uint8_t>;

/// A page that compresses to some of its bytes.
Bytes Page(unsigned salt) {
  Bytes page(kPageBytes);
  for (std::size_t at = 0; at < page.size(); at++) {
    page[at] = static_cast<std::uint8_t>(at % 64 == 0 ? salt + at / 64 : salt);
  }
  return page;
}

/// A page of which nothing is like another, but for its half: what a prefix is for.
Bytes NoisyPage(unsigned salt, unsigned other_half) {
  Bytes page(kPageBytes);
  for (std::size_t at = 0; at < page.size(); at++) {
    const std::uint64_t seed = at < page.size() / 2 ? salt : other_half;
    page[at] = static_cast<std::uint8_t>((seed * 2654435761U + at * at * 40503U) >> 7);
  }
  return page;
}

/// A page like another, but for one word.
Bytes Changed(Bytes page) {
  page[100] ^= 0xff;
  return page;
}

/// A source: encodes batches one after another, each after the last has arrived.
class Source {
 public:
  explicit Source(Codec codec)
      : blocks_(SmallBlocks()),
        index_(*blocks_, kSlots),
        slot_(kSlotRoomBytes + 16 * kPageBytes) {
    options_.codec = codec;
    options_.level = 1;
    options_.store = &index_;
    options_.keeps = true;
    options_.finds_similar = true;
  }

  void FindNothing() { options_.store = nullptr; }

  Bytes Send(const std::function<void(BatchBuilder&)>& fill) {
    BatchBuilder builder(kPageBits);
    builder.Begin(slot_.data(), slot_.size());
    builder.SetEntry(true, -1);
    fill(builder);
    const Bytes batch = Encode(slot_, builder.Seal(), options_, scratch_);
    options_.place.number++;
    options_.place.base++;
    return batch;
  }

  /// Sends the pages that `SampleStore` has.
  void FillStore() {
    Send([](BatchBuilder& builder) {
      for (unsigned i = 0; i < kSlots; i++) {
        builder.AddRaw(0, i, false, SampleStore().data() + i * kPageBytes);
      }
    });
  }

 private:
  std::unique_ptr<BlockTable> blocks_;
  StoreIndex index_;
  Bytes slot_;
  EncodeOptions options_;
  Scratch scratch_;
};

void AddForeign(BatchBuilder& builder) {
  const std::uint8_t xbzrle[] = {1, 0, 2, 8, 9};
  const std::uint8_t zlib[] = {0, 0, 0, 2, 8, 9};
  builder.AddForeign(EntryKind::kXbzrle, 1, 1, true, xbzrle, sizeof xbzrle);
  builder.AddForeign(EntryKind::kCompress, 0, 39, false, zlib, sizeof zlib);
}

void AddAll(BatchBuilder& builder) {
  builder.SetEntry(false, 1);
  builder.AddMark(EntryKind::kSectionBegin);
  builder.AddRaw(0, 1, false, Page(11).data());           // same
  builder.AddRaw(0, 2, false, Changed(Page(12)).data());  // delta
  builder.AddRaw(0, 20, false, Page(60).data());          // kept nowhere
  builder.AddZero(0, 23, false);
  builder.AddZero(0, 24, false);
  builder.AddBlank(1, 0, false);
  builder.AddFill(0, 25, false, 0x1122334455667788);
  builder.AddFill(0, 26, false, 0x1122334455667788);
  AddForeign(builder);
  builder.AddMark(EntryKind::kSectionEnd);
}

struct Sample {
  const char* name;
  std::function<void(BatchBuilder&)> fill;
};

const std::vector<Sample>& Samples() {
  static const std::vector<Sample> samples = {
      {"all-kinds", AddAll},
      {"empty", [](BatchBuilder&) {}},
      {"foreign",
       [](BatchBuilder& builder) {
         builder.SetEntry(true, 0);
         AddForeign(builder);
       }},
      {"two-sections",
       [](BatchBuilder& builder) {
         builder.SetEntry(true, 0);
         builder.AddZero(0, 7, false);
         builder.AddMark(EntryKind::kSectionEnd);
         builder.AddMark(EntryKind::kSectionBegin);
         builder.AddZero(0, 8, true);
         builder.AddBlank(1, 1, false);
       }},
      {"kept",
       [](BatchBuilder& builder) { builder.AddRaw(0, 3, false, NoisyPage(99, 98).data()); }},
      {"like",
       [](BatchBuilder& builder) { builder.AddRaw(0, 5, false, NoisyPage(97, 7).data()); }},
      {"same-run",
       [](BatchBuilder& builder) {
         builder.AddRaw(0, 30, false, Page(10).data());
         builder.AddRaw(0, 31, false, Page(11).data());
         builder.AddRaw(0, 32, false, Page(12).data());
       }},
  };
  return samples;
}

}  // namespace

std::span<const std::uint8_t> SampleStore() {
  static const Bytes stored = [] {
    Bytes pages;
    for (unsigned i = 0; i < kSlots; i++) {
      const Bytes page = i < 5 ? Page(10 + i) : NoisyPage(i, i + 2);
      pages.insert(pages.end(), page.begin(), page.end());
    }
    return pages;
  }();
  return stored;
}

std::vector<NamedBatch> SampleBatches() {
  std::vector<NamedBatch> batches;
  for (std::size_t i = 0; i < std::size(kCodecs); i++) {
    for (const Sample& sample : Samples()) {
      Source source(kCodecs[i]);
      source.FillStore();
      batches.push_back({std::string(sample.name) + "-" + kCodecNames[i],
                         source.Send(sample.fill)});
    }
    Source plain(kCodecs[i]);
    plain.FindNothing();
    batches.push_back({std::string("alone-") + kCodecNames[i], plain.Send(AddAll)});
  }
  // What does not compress is sent plain, so a sample may have come twice.
  std::stable_sort(batches.begin(), batches.end(),
                   [](const auto& a, const auto& b) { return a.bytes < b.bytes; });
  batches.erase(std::unique(batches.begin(), batches.end(),
                            [](const auto& a, const auto& b) { return a.bytes == b.bytes; }),
                batches.end());
  return batches;
}

std::vector<std::vector<std::uint8_t>> SampleRow(std::uint8_t codec) {
  Source source(kCodecs[codec]);
  std::vector<Bytes> row;
  row.push_back(source.Send([](BatchBuilder& builder) {
    builder.AddRaw(0, 0, false, Page(10).data());
    builder.AddRaw(0, 1, false, Page(11).data());
  }));
  row.push_back(source.Send([](BatchBuilder& builder) {
    builder.AddRaw(0, 1, false, Changed(Page(11)).data());
    builder.AddRaw(0, 2, false, Page(10).data());
  }));
  row.push_back(source.Send(
      [](BatchBuilder& builder) { builder.AddRaw(0, 1, false, NoisyPage(3, 4).data()); }));
  row.push_back(source.Send(
      [](BatchBuilder& builder) { builder.AddRaw(0, 1, false, NoisyPage(5, 4).data()); }));
  return row;
}
