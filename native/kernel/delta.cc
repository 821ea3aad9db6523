#include "kernel/delta.h"

#include <algorithm>
#include <bit>

#include "kernel/bytes.h"
#include "kernel/cpu.h"
#include "kernel/variants.h"

namespace pagelane::kernel {

namespace {

/* Fixed by the format */
constexpr std::size_t kWordBytes = 8;
constexpr std::size_t kMaskBytes = 64 * kWordBytes;  // of the page, per mask
constexpr unsigned kCountBitsMax = 35;               // a count of five bytes

/* Chosen by us */
constexpr std::size_t kSlabMasks = 8;  // found at a time, so that words are still near when read

std::size_t CountBytes(std::size_t count) noexcept {
  std::size_t bytes = 1;
  for (; count >= 0x80; count >>= 7) {
    bytes++;
  }
  return bytes;
}

std::uint8_t* WriteCount(std::uint8_t* out, std::size_t count) noexcept {
  for (; count >= 0x80; count >>= 7) {
    *out++ = static_cast<std::uint8_t>(count | 0x80);
  }
  *out++ = static_cast<std::uint8_t>(count);
  return out;
}

/// Reads a count of at most `count_max`, in its shortest form. False if there is none at `*at`.
bool ReadCount(const std::uint8_t** at, const std::uint8_t* end, std::size_t count_max,
               std::size_t* count) noexcept {
  std::uint64_t value = 0;
  for (unsigned shift = 0; shift < kCountBitsMax && *at != end; shift += 7) {
    const std::uint8_t byte = *(*at)++;
    value |= std::uint64_t{byte & 0x7Fu} << shift;
    if (byte < 0x80) {
      *count = value;
      return value <= count_max && (byte != 0 || shift == 0);
    }
  }
  return false;
}

/// Takes the masks of a page one after the other and writes the runs they are made of.
class RunWriter {
 public:
  RunWriter(const std::uint8_t* base, const std::uint8_t* page, std::uint8_t* out,
            std::size_t out_bytes) noexcept
      : base_(base), page_(page), out_(out), at_(out), end_(out + out_bytes) {}

  std::size_t byte_count() const noexcept { return static_cast<std::size_t>(at_ - out_); }

  /// mask: what changed in the 64 words from `first_word` on. False if a run does not fit.
  bool Add(std::size_t first_word, std::uint64_t mask) noexcept {
    unsigned bit = 0;
    if (is_open_) {
      bit = static_cast<unsigned>(std::countr_one(mask));
      if (bit == 64) {
        return true;
      }
      if (!Close(first_word + bit)) {
        return false;
      }
      mask &= ~std::uint64_t{0} << bit;
    }
    while (mask != 0) {
      bit = static_cast<unsigned>(std::countr_zero(mask));
      begin_ = first_word + bit;
      const std::uint64_t past_run = mask + (mask & -mask);
      if (past_run == 0) {
        is_open_ = true;
        return true;
      }
      if (!Close(first_word + static_cast<unsigned>(std::countr_zero(past_run)))) {
        return false;
      }
      mask &= past_run;
    }
    return true;
  }

  /// Ends the page at `word`. False if the last run does not fit.
  bool End(std::size_t word) noexcept { return !is_open_ || Close(word); }

 private:
  bool Close(std::size_t end_word) noexcept {
    const std::size_t skipped = begin_ - last_end_;
    const std::size_t changed = end_word - begin_;
    const std::size_t head_bytes = CountBytes(skipped) + CountBytes(changed);
    if (head_bytes + changed * kWordBytes > static_cast<std::size_t>(end_ - at_)) {
      return false;
    }
    at_ = WriteCount(WriteCount(at_, skipped), changed);
    const std::uint8_t* base = base_ + begin_ * kWordBytes;
    const std::uint8_t* page = page_ + begin_ * kWordBytes;
    for (std::size_t i = 0; i < changed * kWordBytes; i += kWordBytes) {
      StoreLe(at_ + i, LoadLe<std::uint64_t>(base + i) ^ LoadLe<std::uint64_t>(page + i));
    }
    at_ += changed * kWordBytes;
    last_end_ = end_word;
    is_open_ = false;
    return true;
  }

  const std::uint8_t* base_;
  const std::uint8_t* page_;
  const std::uint8_t* out_;
  std::uint8_t* at_;
  const std::uint8_t* end_;
  std::size_t begin_ = 0;
  std::size_t last_end_ = 0;
  bool is_open_ = false;
};

/// Marks what the portable one marks, whichever word is changed, and whichever byte of it.
bool PassesTrial(ChangeFinder find, const std::uint8_t* base, std::uint8_t* page) noexcept {
  constexpr std::size_t kBytes = 1024 + 64;
  constexpr std::size_t kMasks = 3;
  for (std::size_t at = 0; at < kBytes; at++) {
    page[at] ^= 0x80;
    std::uint64_t masks[kMasks];
    std::uint64_t wanted[kMasks];
    const std::size_t offset = at % 3;
    find(base + offset, page + offset, kBytes, masks);
    FindChangesPortable(base + offset, page + offset, kBytes, wanted);
    if (at % 2 == 0) {
      page[at] ^= 0x80;
    }
    if (!std::equal(masks, masks + kMasks, wanted)) {
      return false;
    }
  }
  return true;
}

Variants<DeltaVariant> MakeTable() noexcept {
  const Candidate<DeltaVariant> candidates[] = {
      {{"portable", FindChangesPortable}, true},
#if defined(__x86_64__)
      {{"avx2", FindChangesAvx2}, DetectCpu().has_avx2},
      {{"avx512", FindChangesAvx512}, DetectCpu().has_avx512},
#elif defined(__aarch64__)
      {{"neon", FindChangesNeon}, DetectCpu().has_neon},
#endif
  };
  const auto base = NewTrialBytes();
  const auto page = NewTrialBytes();
  if (base == nullptr || page == nullptr) {
    return Variants<DeltaVariant>(candidates[0]);
  }
  return Variants<DeltaVariant>(
      candidates,
      [&](const DeltaVariant& variant) {
        FillTrialBytes(base.get(), kTrialBytes);
        FillTrialBytes(page.get(), kTrialBytes);
        return PassesTrial(variant.find, base.get(), page.get());
      },
      [&](const DeltaVariant& variant) {
        return TimeTrial([&](std::size_t at) {
          std::uint64_t masks[kTrialPageBytes / kMaskBytes];
          variant.find(base.get() + at, page.get() + at, kTrialPageBytes, masks);
          return masks[0];
        });
      });
}

const Variants<DeltaVariant>& Table() noexcept {
  static const Variants<DeltaVariant> table = MakeTable();
  return table;
}

}  // namespace

std::span<const DeltaVariant> DeltaVariants() noexcept {
  return Table().all();
}

const DeltaVariant& FastestDelta() noexcept {
  return Table().fastest();
}

DeltaResult EncodeDelta(const std::uint8_t* base, const std::uint8_t* page, std::size_t page_bytes,
                        std::uint8_t* out, std::size_t out_bytes) noexcept {
  return EncodeDelta(base, page, page_bytes, out, out_bytes, FastestDelta().find);
}

DeltaResult EncodeDelta(const std::uint8_t* base, const std::uint8_t* page, std::size_t page_bytes,
                        std::uint8_t* out, std::size_t out_bytes, ChangeFinder find) noexcept {
  constexpr DeltaResult kTooLong = {false, 0};
  RunWriter runs(base, page, out, out_bytes);
  std::uint64_t masks[kSlabMasks];
  for (std::size_t slab = 0; slab < page_bytes; slab += kSlabMasks * kMaskBytes) {
    const std::size_t slab_bytes = std::min(page_bytes - slab, kSlabMasks * kMaskBytes);
    find(base + slab, page + slab, slab_bytes, masks);
    for (std::size_t at = 0; at < slab_bytes; at += kMaskBytes) {
      if (!runs.Add((slab + at) / kWordBytes, masks[at / kMaskBytes])) {
        return kTooLong;
      }
    }
  }
  if (!runs.End(page_bytes / kWordBytes)) {
    return kTooLong;
  }
  return {true, runs.byte_count()};
}

bool ApplyDelta(const std::uint8_t* delta, std::size_t delta_bytes, std::uint8_t* page,
                std::size_t page_bytes) noexcept {
  const std::uint8_t* at = delta;
  const std::uint8_t* const end = delta + delta_bytes;
  std::size_t words_left = page_bytes / kWordBytes;
  while (at != end) {
    std::size_t skipped = 0;
    std::size_t changed = 0;
    const bool is_first = at == delta;
    if (!ReadCount(&at, end, words_left, &skipped) || (skipped == 0 && !is_first)) {
      return false;
    }
    words_left -= skipped;
    page += skipped * kWordBytes;
    if (!ReadCount(&at, end, words_left, &changed) || changed == 0 ||
        changed > static_cast<std::size_t>(end - at) / kWordBytes) {
      return false;
    }
    for (std::size_t i = 0; i < changed * kWordBytes; i += kWordBytes) {
      StoreLe(page + i, LoadLe<std::uint64_t>(page + i) ^ LoadLe<std::uint64_t>(at + i));
    }
    words_left -= changed;
    page += changed * kWordBytes;
    at += changed * kWordBytes;
  }
  return true;
}

void FindChangesPortable(const std::uint8_t* base, const std::uint8_t* page,
                         std::size_t byte_count, std::uint64_t* masks) noexcept {
  for (std::size_t at = 0; at < byte_count; at += kMaskBytes) {
    const std::size_t end = std::min(byte_count, at + kMaskBytes);
    std::uint64_t mask = 0;
    for (std::size_t word = at; word < end; word += kWordBytes) {
      const bool differs = LoadLe<std::uint64_t>(base + word) != LoadLe<std::uint64_t>(page + word);
      mask |= std::uint64_t{differs} << ((word - at) / kWordBytes);
    }
    masks[at / kMaskBytes] = mask;
  }
}

}  // namespace pagelane::kernel
