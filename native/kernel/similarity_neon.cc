#include "kernel/similarity.h"

#if defined(__aarch64__)

#include <arm_neon.h>

namespace pagelane::kernel {

void FindFeaturesNeon(const std::uint8_t* bytes, std::size_t byte_count,
                      std::uint32_t* features) noexcept {
  uint32x4_t largest[kFeatures];
  for (uint32x4_t& each : largest) {
    each = vdupq_n_u32(0);
  }
  for (std::size_t at = 0; at < byte_count; at += 32) {
    const uint32x4_t first = vreinterpretq_u32_u8(vld1q_u8(bytes + at));
    const uint32x4_t second = vreinterpretq_u32_u8(vld1q_u8(bytes + at + 16));
    const uint32x4_t low = vmulq_n_u32(vuzp1q_u32(first, second), kLowFactor);
    const uint32x4_t high = vmulq_n_u32(vuzp2q_u32(first, second), kHighFactor);
    uint32x4_t hash = veorq_u32(low, high);
    hash = veorq_u32(hash, vshrq_n_u32(hash, 15));
    for (std::size_t k = 0; k < kFeatures; k++) {
      largest[k] = vmaxq_u32(largest[k], vmulq_n_u32(hash, kFeatureFactors[k]));
    }
  }
  for (std::size_t k = 0; k < kFeatures; k++) {
    features[k] = vmaxvq_u32(largest[k]);
  }
}

}  // namespace pagelane::kernel

#endif  // defined(__aarch64__)
