#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace pagelane::kernel {

/// Features of a page.
inline constexpr std::size_t kFeatures = 4;

/// Finds the kFeatures features of `byte_count` bytes, a multiple of 64 at any alignment.
using FeatureFinder = void (*)(const std::uint8_t* bytes, std::size_t byte_count,
                               std::uint32_t* features) noexcept;

/// One way to find features; all find the same.
struct SimilarityVariant {
  const char* name;
  FeatureFinder find;
};

/// Variants that run on this processor and passed their self-test; the portable one is first.
std::span<const SimilarityVariant> SimilarityVariants() noexcept;

/// The variant that was fastest in a self-test of less than a millisecond, made at the first call.
const SimilarityVariant& FastestSimilarity() noexcept;

/// Finds features by which similar pages are found: pages that share most of their words share
/// most features, wherever the words are.
///
/// Feature k is the largest hash(word) * kFeatureFactors[k], in 32 bits, over the page's 8-byte
/// words, where
///
///     hash(word) = h ^ h >> 15,  h = low half * kLowFactor ^ high half * kHighFactor
///
/// so that a word of zeros never counts and a word that comes again counts once. The features of a
/// page of zeros are 0. A share s of all distinct words is a chance of s for each feature.
///
/// page_bytes: a multiple of 64.
/// Source: Broder, "On the resemblance and containment of documents" (1997); the maximum over
///         words in place of windows, as pages hold words.
void FindFeatures(const std::uint8_t* page, std::size_t page_bytes,
                  std::span<std::uint32_t, kFeatures> features) noexcept;

/* Chosen by us: the factors are odd, so that no hash is lost */
inline constexpr std::uint32_t kLowFactor = 0x9E3779B1;
inline constexpr std::uint32_t kHighFactor = 0x85EBCA77;
inline constexpr std::uint32_t kFeatureFactors[kFeatures] = {0xC2B2AE3D, 0x27D4EB2F, 0x165667B1,
                                                             0xD35A2D97};

/// The variants themselves; only what `DetectCpu` allows may be called.
void FindFeaturesPortable(const std::uint8_t* bytes, std::size_t byte_count,
                          std::uint32_t* features) noexcept;
#if defined(__x86_64__)
void FindFeaturesAvx2(const std::uint8_t* bytes, std::size_t byte_count,
                      std::uint32_t* features) noexcept;
void FindFeaturesAvx512(const std::uint8_t* bytes, std::size_t byte_count,
                        std::uint32_t* features) noexcept;
#elif defined(__aarch64__)
void FindFeaturesNeon(const std::uint8_t* bytes, std::size_t byte_count,
                      std::uint32_t* features) noexcept;
#endif

}  // namespace pagelane::kernel
