#include "kernel/delta.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "support.h"

namespace kernel = pagelane::kernel;

namespace {

void PushCount(std::vector<std::uint8_t>& out, std::size_t count) {
  for (; count >= 128; count /= 128) {
    out.push_back(static_cast<std::uint8_t>(128 + count % 128));
  }
  out.push_back(static_cast<std::uint8_t>(count));
}

/// Word by word, as the format is described.
std::vector<std::uint8_t> EncodeNaively(const std::uint8_t* base, const std::uint8_t* page,
                                        std::size_t page_bytes) {
  const auto differs = [&](std::size_t word) {
    return std::memcmp(base + 8 * word, page + 8 * word, 8) != 0;
  };
  const std::size_t words = page_bytes / 8;
  std::vector<std::uint8_t> out;
  std::size_t last_end = 0;
  for (std::size_t word = 0; word < words; word++) {
    if (!differs(word)) {
      continue;
    }
    std::size_t end = word;
    while (end < words && differs(end)) {
      end++;
    }
    PushCount(out, word - last_end);
    PushCount(out, end - word);
    for (std::size_t at = 8 * word; at < 8 * end; at++) {
      out.push_back(base[at] ^ page[at]);
    }
    last_end = end;
    word = end;
  }
  return out;
}

/// The next count, if it is whole and as short as can be.
std::optional<std::uint64_t> TakeCount(std::span<const std::uint8_t>& delta) {
  std::uint64_t count = 0;
  for (unsigned i = 0; i < delta.size() && i < 9; i++) {
    count += std::uint64_t{delta[i] % 128u} << (7 * i);
    if (delta[i] < 128) {
      if (delta[i] == 0 && i > 0) {
        return std::nullopt;
      }
      delta = delta.subspan(i + 1);
      return count;
    }
  }
  return std::nullopt;
}

/// The page, if the delta is one.
std::optional<std::vector<std::uint8_t>> ApplyNaively(std::span<const std::uint8_t> delta,
                                                      std::vector<std::uint8_t> page) {
  std::uint64_t word = 0;
  for (bool is_first = true; !delta.empty(); is_first = false) {
    const auto skipped = TakeCount(delta);
    const auto changed = TakeCount(delta);
    if (!skipped || !changed || (*skipped == 0 && !is_first) || *changed == 0) {
      return std::nullopt;
    }
    if (*skipped > page.size() || *changed > page.size() || delta.size() < 8 * *changed ||
        8 * (word + *skipped + *changed) > page.size()) {
      return std::nullopt;
    }
    word += *skipped;
    for (std::size_t i = 0; i < 8 * *changed; i++) {
      page[8 * word + i] ^= delta[i];
    }
    delta = delta.subspan(8 * *changed);
    word += *changed;
  }
  return page;
}

/// Changes a page as `kind` says: nothing, bytes here and there, runs, every second word, all.
void Edit(Random& random, Bytes& page, std::size_t kind) {
  const std::size_t page_bytes = page.size();
  if (kind == 1) {
    for (std::size_t left = 1 + random.Below(12); left > 0; left--) {
      page[random.Below(page_bytes)] ^= static_cast<std::uint8_t>(random.Next());
    }
  } else if (kind == 2) {
    for (std::size_t left = 1 + random.Below(6); left > 0; left--) {
      const std::size_t begin = random.Below(page_bytes);
      const std::size_t end = begin + random.Below(std::min<std::size_t>(page_bytes - begin, 999));
      for (std::size_t at = begin; at < end; at++) {
        page[at] ^= static_cast<std::uint8_t>(random.Next() | 1);
      }
    }
  } else if (kind == 3) {
    for (std::size_t at = 8 * random.Below(2); at < page_bytes; at += 16) {
      page[at] ^= 1;
    }
  } else if (kind == 4) {
    for (std::size_t at = 0; at < page_bytes; at += 8) {
      page[at + random.Below(8)] ^= 0x80;
    }
  }
}

void CheckRoundTrip(const kernel::DeltaVariant& variant, Bytes& base, Bytes& page) {
  const std::size_t page_bytes = page.size();
  const auto wanted = EncodeNaively(base.data(), page.data(), page_bytes);
  Bytes out(wanted.size());
  const kernel::DeltaResult delta = kernel::EncodeDelta(
      base.data(), page.data(), page_bytes, out.data(), out.size(), variant.find);
  CHECK(delta.fits && delta.bytes == wanted.size());
  CHECK(std::equal(wanted.begin(), wanted.end(), out.data()));
  if (!wanted.empty()) {
    for (const std::size_t out_bytes : {std::size_t{0}, wanted.size() / 2, wanted.size() - 1}) {
      Bytes small(out_bytes);
      CHECK(!kernel::EncodeDelta(base.data(), page.data(), page_bytes, small.data(), out_bytes,
                                 variant.find)
                 .fits);
    }
  }
  CHECK(kernel::ApplyDelta(out.data(), out.size(), base.data(), page_bytes));
  CHECK(std::memcmp(base.data(), page.data(), page_bytes) == 0);
}

/// Applies what may be no delta, its bytes and the page's each between guards.
class Victim {
 public:
  Victim(std::size_t page_bytes, std::size_t delta_bytes_max)
      : base_(page_bytes), pages_(page_bytes), deltas_(delta_bytes_max) {
    Random random(page_bytes);
    for (std::uint8_t& byte : base_) {
      byte = static_cast<std::uint8_t>(random.Next());
    }
  }

  const std::vector<std::uint8_t>& base() const { return base_; }

  bool Agrees(std::span<const std::uint8_t> delta) {
    const auto wanted = ApplyNaively(delta, base_);
    std::uint8_t* bytes = deltas_.AtEnd(delta.size());
    std::copy(delta.begin(), delta.end(), bytes);
    for (std::uint8_t* page : {pages_.AtBegin(), pages_.AtEnd(base_.size())}) {
      std::copy(base_.begin(), base_.end(), page);
      if (kernel::ApplyDelta(bytes, delta.size(), page, base_.size()) != wanted.has_value()) {
        return false;
      }
      if (wanted && !std::equal(wanted->begin(), wanted->end(), page)) {
        return false;
      }
    }
    return true;
  }

 private:
  std::vector<std::uint8_t> base_;
  GuardedBytes pages_;
  GuardedBytes deltas_;
};

/// A delta with runs at both ends of the page and in between, and one of 128 words or more.
std::vector<std::uint8_t> ManyRuns(const std::vector<std::uint8_t>& base) {
  std::vector<std::uint8_t> page = base;
  const std::size_t words = page.size() / 8;
  for (const std::size_t word : {std::size_t{0}, std::size_t{1}, std::size_t{9}, words - 1}) {
    page[8 * word + word % 8] ^= 0x11;
  }
  for (std::size_t word = 200; word < 330 && word < words; word++) {
    page[8 * word] ^= 0x22;
  }
  return EncodeNaively(base.data(), page.data(), page.size());
}

}  // namespace

void TestDelta() {
  CheckNoneIsMissing(kernel::DeltaVariants());
  for (const kernel::DeltaVariant& variant : kernel::DeltaVariants()) {
    Random random(7);
    for (const std::size_t page_bytes : kPageSizes) {
      const std::size_t rounds = page_bytes > 8192 ? 4 : 20;
      for (std::size_t round = 0; round < 5 * rounds; round++) {
        Bytes base(page_bytes, random.Below(9));
        Bytes page(page_bytes, random.Below(9));
        base.Randomize(random);
        std::memcpy(page.data(), base.data(), page_bytes);
        Edit(random, page, round % 5);
        CheckRoundTrip(variant, base, page);
      }
    }
  }
  Bytes page(1024);
  CHECK(kernel::EncodeDelta(page.data(), page.data(), 1024, nullptr, 0).fits);
  CHECK(kernel::ApplyDelta(nullptr, 0, page.data(), 1024));
}

void TestHostileDelta() {
  for (const std::size_t page_bytes : {std::size_t{1024}, std::size_t{4096}}) {
    Victim victim(page_bytes, 8192);
    const auto delta = ManyRuns(victim.base());
    for (std::size_t length = 0; length <= delta.size(); length++) {
      CHECK(victim.Agrees(std::span(delta).first(length)));
    }
    std::vector<std::uint8_t> changed = delta;
    for (std::size_t at = 0; at < delta.size(); at++) {
      // In the middle of the long run are words: whatever they are, they are right.
      const bool is_near_count = at < 64 || at + 64 > delta.size();
      for (unsigned value = 0; value < 256; value += is_near_count ? 1 : 85) {
        changed[at] = static_cast<std::uint8_t>(value);
        CHECK(victim.Agrees(changed));
      }
      changed[at] = delta[at];
    }
    Random random(page_bytes);
    for (int round = 0; round < 20000; round++) {
      std::vector<std::uint8_t> noise(random.Below(40));
      for (std::uint8_t& byte : noise) {
        byte = static_cast<std::uint8_t>(random.Below(4) == 0 ? random.Next() : random.Below(5));
      }
      CHECK(victim.Agrees(noise));
    }
  }
  // Each breaks one rule; a page of 1 KiB has 128 words.
  Victim victim(1024, 8192);
  std::vector<std::uint8_t> whole(2 + 1024, 1);
  whole[0] = 0x00;
  const std::vector<std::vector<std::uint8_t>> wrong = {
      {0x00},                                                  // no count of words
      {0x05},                                                  // a trailing skip
      {0x05, 0x00},                                            // no words
      {0x05, 0x01, 1, 2, 3, 4, 5, 6, 7},                       // half a word
      {0x80, 0x00, 0x01, 1, 2, 3, 4, 5, 6, 7, 8},              // 0 in two bytes
      {0x00, 0x81, 0x00, 1, 2, 3, 4, 5, 6, 7, 8},              // 1 in two bytes
      {0x80, 0x01, 0x01, 1, 2, 3, 4, 5, 6, 7, 8},              // the word past the page
      {0x81, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80},  // a count that never ends
      {0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01, 0x01, 1, 2, 3, 4, 5, 6, 7, 8},
      {0x00, 0x01, 1, 2, 3, 4, 5, 6, 7, 8, 0x00, 0x01, 1, 2, 3, 4, 5, 6, 7, 8},  // should be one
  };
  for (const auto& delta : wrong) {
    CHECK(!ApplyNaively(delta, victim.base()));
    CHECK(victim.Agrees(delta));
  }
}
