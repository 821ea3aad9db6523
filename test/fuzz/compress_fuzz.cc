// Any bytes as compressed ones, and any bytes compressed and decompressed again. Of an input, the
// first byte says which, by which codec, how well, and whether with a prefix; the next two how many
// bytes there should be at the end.

#include <algorithm>

#include "kernel/compress.h"
#include "kernel/limits.h"
#include "support.h"

using namespace pagelane::kernel;

namespace {

constexpr std::size_t kHeadBytes = 3;
constexpr int kLevels[2][4] = {{1, 2, 8, 65537}, {1, 3, -5, -131072}};

using Bytes = std::span<const std::uint8_t>;

/// Some bytes that may be in front of what is compressed.
Bytes Prefix() {
  static const std::vector<std::uint8_t> prefix = [] {
    std::vector<std::uint8_t> bytes;
    for (unsigned i = 0; i < 2 * kPageBytes; i++) {
      bytes.push_back(static_cast<std::uint8_t>(i * i / 7 + i % 50));
    }
    return bytes;
  }();
  return prefix;
}

void Decompress(Compressor& compressor, Codec codec, Bytes source, Bytes prefix,
                std::size_t target_bytes) {
  // Exactly as many bytes as are asked for: a sanitizer then sees every byte written past them.
  const std::unique_ptr<std::uint8_t[]> target(new std::uint8_t[target_bytes]);
  const Decompressed result =
      compressor.Decompress(codec, source, prefix, {target.get(), target_bytes});
  Check(result != Decompressed::kNoMemory || allocation_failed, "memory is there");
}

void GoRound(Compressor& compressor, Codec codec, int level, Bytes source, Bytes prefix,
             std::size_t room) {
  const std::unique_ptr<std::uint8_t[]> packed(new std::uint8_t[room]);
  const std::size_t count =
      compressor.Compress(codec, level, source, prefix, {packed.get(), room});
  Check(count <= room, "it is within its room");
  if (count == 0) {
    return;
  }
  const std::unique_ptr<std::uint8_t[]> again(new std::uint8_t[source.size()]);
  const Decompressed result =
      compressor.Decompress(codec, {packed.get(), count}, prefix, {again.get(), source.size()});
  Check(result == Decompressed::kExact || (result == Decompressed::kNoMemory && allocation_failed),
        "what was compressed is decompressed");
  Check(result != Decompressed::kExact || std::equal(source.begin(), source.end(), again.get()),
        "to what it was");
}

void CheckLimits(Compressor& compressor, Codec codec) {
  static std::vector<std::uint8_t> source(kLiteralBytesMax + 1);
  std::uint8_t target = 0;
  Check(compressor.Compress(codec, 1, source, {}, {&target, 1}) == 0,
        "no more than a batch is compressed");
  Check(compressor.Decompress(codec, {&target, 1}, {}, source) == Decompressed::kMalformed,
        "no more than a batch is decompressed");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < kHeadBytes) {
    return 0;
  }
  Compressor& compressor = Kept<Compressor>();
  const auto codec = static_cast<Codec>((data[0] >> 1 & 3) % 3);
  const LevelRange levels = LevelsOf(codec);
  const int level =
      std::clamp(kLevels[codec == Codec::kZstd ? 1 : 0][data[0] >> 3 & 3], levels.min, levels.max);
  const std::size_t target_bytes = data[1] | data[2] << 8;
  const Bytes source(data + kHeadBytes, size - kHeadBytes);
  CheckLimits(compressor, codec);
  const Bytes prefix = (data[0] & 32) == 0 ? Bytes() : Prefix();
  if ((data[0] & 1) == 0) {
    Decompress(compressor, codec, source, prefix, target_bytes);
  } else if (!source.empty()) {
    GoRound(compressor, codec, level, source, prefix, target_bytes);
  }
  return 0;
}

std::vector<Seed> Seeds() {
  std::vector<Seed> seeds;
  std::vector<std::uint8_t> text;
  for (std::uint8_t i = 0; i < 200; i++) {
    text.push_back(i % 50 < 40 ? 'a' + i % 3 : i);
  }
  Check(*Lz4Version() != '\0' && *ZstdVersion() != '\0', "the libraries have versions");
  Compressor compressor;
  for (const std::uint8_t way : {0, 2, 4, 36}) {
    const auto codec = static_cast<Codec>(way >> 1 & 3);
    const Bytes prefix = (way & 32) == 0 ? Bytes() : Prefix();
    const std::string name = std::to_string(way);
    Seed round{"round-" + name, {static_cast<std::uint8_t>(1 | way), 200, 0}};
    round.bytes.insert(round.bytes.end(), text.begin(), text.end());
    Seed packed{name, {way, 200, 0}};
    packed.bytes.resize(kHeadBytes + 200);
    packed.bytes.resize(kHeadBytes +
                        compressor.Compress(codec, 1, text, prefix,
                                            std::span(packed.bytes).subspan(kHeadBytes)));
    Seed twice = packed;
    twice.name += "-twice";
    twice.bytes.insert(twice.bytes.end(), packed.bytes.begin() + kHeadBytes, packed.bytes.end());
    seeds.insert(seeds.end(), {round, packed, twice});
  }
  return seeds;
}
