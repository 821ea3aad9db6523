#include "kernel/fill_page.h"

#if defined(__aarch64__)

#include <arm_neon.h>

namespace pagelane::kernel {

bool IsFillNeon(const std::uint8_t* bytes, std::size_t byte_count) noexcept {
  const uint8x16_t fill = vreinterpretq_u8_u64(vdupq_n_u64(LoadLe<std::uint64_t>(bytes)));
  for (std::size_t at = 0; at < byte_count; at += 64) {
    const uint8x16x4_t part = vld1q_u8_x4(bytes + at);
    const uint8x16_t low = vorrq_u8(veorq_u8(part.val[0], fill), veorq_u8(part.val[1], fill));
    const uint8x16_t high = vorrq_u8(veorq_u8(part.val[2], fill), veorq_u8(part.val[3], fill));
    if (vmaxvq_u8(vorrq_u8(low, high)) != 0) {
      return false;
    }
  }
  return true;
}

}  // namespace pagelane::kernel

#endif  // defined(__aarch64__)
