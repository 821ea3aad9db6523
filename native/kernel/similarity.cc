#include "kernel/similarity.h"

#include <algorithm>

#include "kernel/bytes.h"
#include "kernel/cpu.h"
#include "kernel/variants.h"

namespace pagelane::kernel {

namespace {

/// Finds what the portable one finds in pages that are random, at odd places, of any length, and
/// partly zero.
bool PassesTrial(FeatureFinder find, const std::uint8_t* bytes) noexcept {
  for (std::size_t byte_count = 64; byte_count <= 1024 + 64; byte_count += 64) {
    const std::uint8_t* page = bytes + kTrialBytes / 2 - byte_count + byte_count % 7;
    std::uint32_t found[kFeatures];
    std::uint32_t wanted[kFeatures];
    find(page, byte_count, found);
    FindFeaturesPortable(page, byte_count, wanted);
    if (!std::equal(found, found + kFeatures, wanted)) {
      return false;
    }
  }
  return true;
}

Variants<SimilarityVariant> MakeTable() noexcept {
  const Candidate<SimilarityVariant> candidates[] = {
      {{"portable", FindFeaturesPortable}, true},
#if defined(__x86_64__)
      {{"avx2", FindFeaturesAvx2}, DetectCpu().has_avx2},
      {{"avx512", FindFeaturesAvx512}, DetectCpu().has_avx512},
#elif defined(__aarch64__)
      {{"neon", FindFeaturesNeon}, DetectCpu().has_neon},
#endif
  };
  const auto bytes = NewTrialBytes();
  if (bytes == nullptr) {
    return Variants<SimilarityVariant>(candidates[0]);
  }
  FillTrialBytes(bytes.get(), kTrialBytes / 2);
  return Variants<SimilarityVariant>(
      candidates,
      [&](const SimilarityVariant& variant) { return PassesTrial(variant.find, bytes.get()); },
      [&](const SimilarityVariant& variant) {
        return TimeTrial([&](std::size_t at) {
          std::uint32_t features[kFeatures];
          variant.find(bytes.get() + at, kTrialPageBytes, features);
          return features[0];
        });
      });
}

const Variants<SimilarityVariant>& Table() noexcept {
  static const Variants<SimilarityVariant> table = MakeTable();
  return table;
}

}  // namespace

std::span<const SimilarityVariant> SimilarityVariants() noexcept {
  return Table().all();
}

const SimilarityVariant& FastestSimilarity() noexcept {
  return Table().fastest();
}

void FindFeatures(const std::uint8_t* page, std::size_t page_bytes,
                  std::span<std::uint32_t, kFeatures> features) noexcept {
  FastestSimilarity().find(page, page_bytes, features.data());
}

void FindFeaturesPortable(const std::uint8_t* bytes, std::size_t byte_count,
                          std::uint32_t* features) noexcept {
  std::uint32_t largest[kFeatures] = {};
  for (std::size_t at = 0; at < byte_count; at += 8) {
    const auto word = LoadLe<std::uint64_t>(bytes + at);
    std::uint32_t hash = static_cast<std::uint32_t>(word) * kLowFactor ^
                         static_cast<std::uint32_t>(word >> 32) * kHighFactor;
    hash ^= hash >> 15;
    for (std::size_t k = 0; k < kFeatures; k++) {
      largest[k] = std::max(largest[k], hash * kFeatureFactors[k]);
    }
  }
  std::copy(largest, largest + kFeatures, features);
}

}  // namespace pagelane::kernel
