// Any bytes as a delta, and any two pages with a delta made of them. The first byte of an input
// says which, and how long pages are; what follows is the delta, or edits of the page: a word to
// skip to, and how many bytes from there on are XORed with those that follow.

#include <algorithm>
#include <array>
#include <cstring>

#include "kernel/delta.h"
#include "support.h"

using namespace pagelane::kernel;

namespace {

constexpr std::size_t kPageSizes[] = {1024, 64, 4096, 128};

/// Two pages and room for a delta, each of a size of its own.
struct Room {
  explicit Room(std::size_t page_bytes)
      : base(new std::uint8_t[page_bytes]), page(new std::uint8_t[page_bytes]) {
    for (std::size_t at = 0; at < page_bytes; at++) {
      base[at] = static_cast<std::uint8_t>(at * 7 + at / 256);
    }
  }

  std::unique_ptr<std::uint8_t[]> base;
  std::unique_ptr<std::uint8_t[]> page;
};

struct Rooms {
  std::array<Room, 4> of = {Room(kPageSizes[0]), Room(kPageSizes[1]), Room(kPageSizes[2]),
                            Room(kPageSizes[3])};
};

/// Applies a delta slowly. False if it is none.
bool ApplySlowly(std::span<const std::uint8_t> delta, std::span<std::uint8_t> page) {
  std::size_t at = 0;
  std::size_t word = 0;
  const auto count = [&](std::uint64_t* value) {
    *value = 0;
    for (unsigned bits = 0; bits < 35; bits += 7) {
      if (at == delta.size()) {
        return false;
      }
      const std::uint8_t byte = delta[at++];
      *value += std::uint64_t{byte & 0x7fU} << bits;
      if (byte < 0x80) {
        return byte != 0 || bits == 0;
      }
    }
    return false;
  };
  while (at < delta.size()) {
    const bool is_first = at == 0;
    std::uint64_t skipped = 0;
    std::uint64_t changed = 0;
    if (!count(&skipped) || !count(&changed) || changed == 0 || (skipped == 0 && !is_first) ||
        word + skipped + changed > page.size() / 8 || changed * 8 > delta.size() - at) {
      return false;
    }
    word += skipped;
    for (std::uint64_t i = 0; i < changed * 8; i++) {
      page[word * 8 + i] ^= delta[at++];
    }
    word += changed;
  }
  return true;
}

void Apply(std::span<const std::uint8_t> delta, Room& room, std::size_t page_bytes) {
  std::memcpy(room.page.get(), room.base.get(), page_bytes);
  const bool is_delta = ApplyDelta(delta.data(), delta.size(), room.page.get(), page_bytes);
  std::array<std::uint8_t, 4096> slow;
  std::memcpy(slow.data(), room.base.get(), page_bytes);
  Check(is_delta == ApplySlowly(delta, std::span(slow).first(page_bytes)), "both find a delta");
  Check(!is_delta || std::memcmp(slow.data(), room.page.get(), page_bytes) == 0,
        "both find the page");
}

void Edit(std::span<const std::uint8_t> edits, std::span<std::uint8_t> page) {
  std::size_t word = 0;
  while (edits.size() >= 2) {
    word = (word + edits[0]) % (page.size() / 8);
    const std::size_t count =
        std::min({std::size_t{edits[1]}, edits.size() - 2, page.size() - word * 8});
    for (std::size_t i = 0; i < count; i++) {
      page[word * 8 + i] ^= edits[2 + i];
    }
    edits = edits.subspan(2 + count);
  }
}

void GoRound(std::span<const std::uint8_t> edits, Room& room, std::size_t page_bytes) {
  std::uint8_t* page = room.page.get();
  std::memcpy(page, room.base.get(), page_bytes);
  Edit(edits, {page, page_bytes});
  const std::size_t first = edits.empty() ? 0 : edits[0];
  for (const DeltaVariant& variant : DeltaVariants()) {
    // A page's worth and some, or so few bytes that the delta may not fit.
    for (const std::size_t room_bytes : {page_bytes + page_bytes / 4, first}) {
      const std::unique_ptr<std::uint8_t[]> delta(new std::uint8_t[room_bytes]);
      const DeltaResult result = EncodeDelta(room.base.get(), page, page_bytes, delta.get(),
                                             room_bytes, variant.find);
      const DeltaResult fastest =
          EncodeDelta(room.base.get(), page, page_bytes, delta.get(), room_bytes);
      Check(fastest.fits == result.fits && fastest.bytes == result.bytes, "variants agree");
      Check(result.fits || room_bytes == first, "a delta is not much longer than its page");
      if (!result.fits) {
        continue;
      }
      Check(result.bytes <= room_bytes, "a delta is within its room");
      std::array<std::uint8_t, 4096> again;
      std::memcpy(again.data(), room.base.get(), page_bytes);
      Check(ApplyDelta(delta.get(), result.bytes, again.data(), page_bytes), "it is a delta");
      Check(std::memcmp(again.data(), page, page_bytes) == 0, "it leads to the page");
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 1) {
    return 0;
  }
  const std::size_t which = data[0] >> 1 & 3;
  Room& room = Kept<Rooms>().of[which];
  if ((data[0] & 1) == 0) {
    Apply({data + 1, size - 1}, room, kPageSizes[which]);
  } else {
    GoRound({data + 1, size - 1}, room, kPageSizes[which]);
  }
  return 0;
}

std::vector<Seed> Seeds() {
  const std::vector<std::uint8_t> word = {1, 2, 3, 4, 5, 6, 7, 8};
  const auto join = [](std::initializer_list<std::vector<std::uint8_t>> parts) {
    std::vector<std::uint8_t> all;
    for (const std::vector<std::uint8_t>& part : parts) {
      all.insert(all.end(), part.begin(), part.end());
    }
    return all;
  };
  return {
      {"equal", {0}},
      {"first-word", join({{0, 0, 1}, word})},
      {"two-runs", join({{0, 0, 1}, word, {5, 2}, word, word})},
      {"long-skip", join({{4, 0x80, 2, 1}, word})},
      {"long-form", join({{0, 0x80, 0, 1}, word})},
      {"no-skip", join({{0, 0, 1}, word, {0, 1}, word})},
      {"no-change", {0, 3, 0}},
      {"past-page", join({{2, 7, 2}, word, word})},
      {"cut", {0, 1, 1, 9}},
      {"huge", {0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}},
      {"edits", {1, 0, 3, 1, 2, 3, 4, 8, 1, 1, 1, 1, 1, 1, 1, 1, 200, 1, 9}},
      {"edits-4096", {5, 0, 3, 1, 2, 3, 255, 8, 1, 1, 1, 1, 1, 1, 1, 1, 200, 1, 9}},
  };
}
