#include "kernel/zero_page.h"

#if defined(__aarch64__)

#include <arm_neon.h>

namespace pagelane::kernel {

bool IsZeroNeon(const std::uint8_t* bytes, std::size_t byte_count) noexcept {
  std::size_t at = 0;
  for (; at + 128 <= byte_count; at += 128) {
    const uint8x16x4_t low = vld1q_u8_x4(bytes + at);
    const uint8x16x4_t high = vld1q_u8_x4(bytes + at + 64);
    const uint8x16_t a = vorrq_u8(vorrq_u8(low.val[0], low.val[1]),
                                  vorrq_u8(low.val[2], low.val[3]));
    const uint8x16_t b = vorrq_u8(vorrq_u8(high.val[0], high.val[1]),
                                  vorrq_u8(high.val[2], high.val[3]));
    if (vmaxvq_u8(vorrq_u8(a, b)) != 0) {
      return false;
    }
  }
  for (; at < byte_count; at += 64) {
    const uint8x16x4_t rest = vld1q_u8_x4(bytes + at);
    const uint8x16_t all = vorrq_u8(vorrq_u8(rest.val[0], rest.val[1]),
                                    vorrq_u8(rest.val[2], rest.val[3]));
    if (vmaxvq_u8(all) != 0) {
      return false;
    }
  }
  return true;
}

}  // namespace pagelane::kernel

#endif  // defined(__aarch64__)
