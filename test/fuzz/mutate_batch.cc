#include "mutate_batch.h"

#include <algorithm>
#include <iterator>
#include <random>

#include "kernel/bytes.h"
#include "mend.h"

using namespace pagelane::kernel;

namespace {

using Random = std::minstd_rand;

constexpr std::uint8_t kKinds[] = {0x01, 0x02, 0x03, 0x10, 0x11, 0x12,
                                   0x13, 0x14, 0x15, 0x16, 0x17, 0x18};

/// Changes `bytes` as libFuzzer would, to at most `bytes_max`.
void MutateBytes(std::vector<std::uint8_t>& bytes, std::size_t bytes_max) {
  const std::size_t count = bytes.size();
  bytes.resize(std::max(bytes_max, count));
  bytes.resize(LLVMFuzzerMutate(bytes.data(), count, bytes.size()));
}

std::uint16_t SmallNumber(Random& random, unsigned max) {
  return static_cast<std::uint16_t>(random() % 8 == 0 ? random() : random() % (max + 1));
}

std::uint32_t SomeSlot(Random& random) {
  return static_cast<std::uint32_t>(random() % 16 == 0 ? random() : random() % (kSlots + 1));
}

EntryParts NewEntry(Random& random) {
  EntryParts part;
  MapEntry& entry = part.entry;
  entry.kind = static_cast<EntryKind>(kKinds[random() % std::size(kKinds)]);
  if (entry.kind == EntryKind::kPrefix) {
    entry.count = SmallNumber(random, 3);
    entry.first_page = SomeSlot(random);
  } else if (IsPageKind(entry.kind)) {
    entry.flags = static_cast<std::uint8_t>(random() % 2);
    entry.flags |= IsKeepableKind(entry.kind) && random() % 2 == 0 ? kEntryKeeps : 0;
    entry.block = static_cast<std::uint16_t>(random() % 3);
    entry.count = static_cast<std::uint16_t>(random() % 4 == 0 ? 2 : 1);
    entry.first_page = random() % (entry.block == 1 ? 2 : 40);
  }
  switch (entry.kind) {
    case EntryKind::kXbzrle:
      part.contents = {1, 0, static_cast<std::uint8_t>(random() % 20)};
      entry.length = static_cast<std::uint16_t>(3 + part.contents[2]);
      break;
    case EntryKind::kCompress:
      part.contents = {0, 0, 0, static_cast<std::uint8_t>(random() % 20)};
      entry.length = static_cast<std::uint16_t>(4 + part.contents[3]);
      break;
    case EntryKind::kDelta:
      // A run of words after the first few.
      part.contents = {static_cast<std::uint8_t>(random() % 40), 1};
      entry.length = static_cast<std::uint16_t>(random() % 8 == 0 ? 0 : 10);
      break;
    default:
      break;
  }
  part.references = {SomeSlot(random), SomeSlot(random)};
  return part;
}

void MutateField(EntryParts& part, Random& random) {
  MapEntry& entry = part.entry;
  switch (random() % 8) {
    case 0:
      entry.kind = static_cast<EntryKind>(kKinds[random() % std::size(kKinds)]);
      break;
    case 1:
      entry.flags ^= static_cast<std::uint8_t>(1U << random() % 3);
      break;
    case 2:
      entry.block = SmallNumber(random, 3);
      break;
    case 3:
      entry.count = SmallNumber(random, 4);
      break;
    case 4:
      entry.length = SmallNumber(random, 64);
      break;
    case 5:
      entry.first_page = random() % 8 == 0 ? random() : random() % 42;
      break;
    default:
      part.references.resize(2);
      part.references[random() % 2] = SomeSlot(random);
  }
}

/// Changes contents, and mostly lets the entry say how long they are.
void MutateContents(EntryParts& part, std::size_t bytes_max, Random& random) {
  MutateBytes(part.contents, std::clamp<std::size_t>(bytes_max, 64, 2 * kPageBytes));
  const bool has_length = IsForeignKind(part.entry.kind) || part.entry.kind == EntryKind::kDelta;
  if (!has_length || random() % 4 == 0) {
    return;
  }
  const std::size_t count = std::min<std::size_t>(part.contents.size(), kForeignBytesMax);
  part.entry.length = static_cast<std::uint16_t>(count);
  std::uint8_t* contents = part.contents.data();
  if (part.entry.kind == EntryKind::kXbzrle && count >= 3) {
    contents[0] = 1;
    StoreLe(contents + 1, __builtin_bswap16(static_cast<std::uint16_t>(count - 3)));
  } else if (part.entry.kind == EntryKind::kCompress && count >= 4) {
    StoreBe32(contents, static_cast<std::uint32_t>(count - 4));
  }
}

void MutateEntries(std::vector<EntryParts>& entries, std::size_t bytes_max, Random& random) {
  const std::size_t at = entries.empty() ? 0 : random() % entries.size();
  const auto here = entries.begin() + static_cast<std::ptrdiff_t>(at);
  switch (entries.empty() ? 0 : random() % 8) {
    case 0:
      entries.insert(here, NewEntry(random));
      break;
    case 1:
      entries.erase(here);
      break;
    case 2:
      entries.insert(here, EntryParts(*here));
      break;
    case 3:
      std::swap(entries[at], entries[random() % entries.size()]);
      break;
    case 4:
    case 5:
      MutateContents(*here, bytes_max, random);
      break;
    default:
      MutateField(*here, random);
  }
}

void MutateParts(BatchParts& parts, std::size_t bytes_max, Random& random) {
  switch (random() % 8) {
    case 0:
      parts.codec = static_cast<Codec>(random() % 3);
      break;
    case 1:
      parts.header[2] ^= static_cast<std::uint8_t>(1U << random() % 4);
      break;
    case 2:
      // Fields that sizes and counts do not decide.
      MutateBytes(parts.header, kBatchHeaderBytes);
      parts.header.resize(kBatchHeaderBytes);
      break;
    default:
      MutateEntries(parts.entries, bytes_max, random);
  }
}

}  // namespace

std::size_t MutateBatch(std::uint8_t* batch, std::size_t bytes, std::size_t bytes_max,
                        unsigned seed, Destination& destination) {
  if (bytes_max == 0) {
    return 0;
  }
  Random random(seed);
  BatchParts parts;
  const unsigned way = random() % 16;
  if (way < 2 || !TakeApart({batch, bytes}, destination.stored(), &parts)) {
    // Any change at all; mostly with a checksum that fits, so that it is not what is found first.
    bytes = LLVMFuzzerMutate(batch, bytes, bytes_max);
    if (way != 0) {
      MendChecksum({batch, bytes}, destination);
    }
    return bytes;
  }
  for (auto left = 1 + random() % 3; left > 0; left--) {
    MutateParts(parts, bytes_max, random);
  }
  std::vector<std::uint8_t> changed = PutTogether(parts, destination.stored());
  changed.resize(std::min(changed.size(), bytes_max));
  MendChecksum(changed, destination);
  std::copy(changed.begin(), changed.end(), batch);
  return changed.size();
}
