#include "kernel/similarity.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <set>

#include "support.h"

namespace kernel = pagelane::kernel;

namespace {

using Features = std::array<std::uint32_t, kernel::kFeatures>;

/// From the definition: over the set of words that are not zero.
Features FindNaively(const std::uint8_t* page, std::size_t page_bytes) {
  std::set<std::uint64_t> words;
  for (std::size_t at = 0; at < page_bytes; at += 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, page + at, 8);
    words.insert(word);
  }
  words.erase(0);
  Features features = {};
  for (const std::uint64_t word : words) {
    const auto low = static_cast<std::uint32_t>(word);
    const auto high = static_cast<std::uint32_t>(word >> 32);
    const std::uint32_t mixed = low * 0x9E3779B1 ^ high * 0x85EBCA77;
    const std::uint32_t hash = mixed ^ mixed >> 15;
    for (std::size_t k = 0; k < kernel::kFeatures; k++) {
      features[k] = std::max(features[k], hash * kernel::kFeatureFactors[k]);
    }
  }
  return features;
}

Features Find(kernel::FeatureFinder find, const std::uint8_t* page, std::size_t page_bytes) {
  Features features;
  features.fill(0xFFFFFFFF);
  find(page, page_bytes, features.data());
  return features;
}

}  // namespace

void TestSimilarity() {
  CheckNoneIsMissing(kernel::SimilarityVariants());
  for (const kernel::SimilarityVariant& variant : kernel::SimilarityVariants()) {
    Random random(3);
    for (const std::size_t page_bytes : kPageSizes) {
      GuardedBytes memory(page_bytes);
      CHECK(Find(variant.find, memory.AtBegin(), page_bytes) == Features{});
      CHECK(Find(variant.find, memory.AtEnd(page_bytes), page_bytes) == Features{});
      for (int round = 0; round < 8; round++) {
        Bytes page(page_bytes, random.Below(9));
        page.Randomize(random);
        for (std::size_t at = 0; at < page_bytes; at += 8 * (1 + random.Below(5))) {
          std::memset(page.data() + at, 0, 8);
        }
        CHECK(Find(variant.find, page.data(), page_bytes) ==
              FindNaively(page.data(), page_bytes));
      }
      // One word, wherever it is, is found by all features.
      Bytes page(page_bytes);
      const std::size_t at = random.Below(page_bytes);
      page[at] = 0x40;
      CHECK(Find(variant.find, page.data(), page_bytes) == FindNaively(page.data(), page_bytes));
    }
  }
  // Words in another order, some of them twice, are the same content.
  Random random(4);
  Bytes page(4096);
  page.Randomize(random);
  Bytes other(4096);
  std::memcpy(other.data(), page.data() + 2048, 2048);
  std::memcpy(other.data() + 2048, page.data(), 2048);
  Features one;
  Features two;
  kernel::FindFeatures(page.data(), 4096, one);
  kernel::FindFeatures(other.data(), 4096, two);
  CHECK(one == two);
  // With 16 of 512 words changed, most features stay.
  std::size_t equal = 0;
  for (int round = 0; round < 100; round++) {
    page.Randomize(random);
    kernel::FindFeatures(page.data(), 4096, one);
    for (int i = 0; i < 16; i++) {
      page[random.Below(4096)] ^= 0x55;
    }
    kernel::FindFeatures(page.data(), 4096, two);
    for (std::size_t k = 0; k < kernel::kFeatures; k++) {
      equal += one[k] == two[k] ? 1 : 0;
    }
  }
  CHECK(equal >= 350);
}
