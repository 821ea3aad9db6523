#include "kernel/delta.h"

#if defined(__aarch64__)

#include <arm_neon.h>

namespace pagelane::kernel {

namespace {

/// All bits set in each word that is equal; 4 words as 32 bits each.
inline uint32x4_t Equal32(const std::uint8_t* base, const std::uint8_t* page) noexcept {
  const uint64x2_t low = vceqq_u64(vreinterpretq_u64_u8(vld1q_u8(base)),
                                   vreinterpretq_u64_u8(vld1q_u8(page)));
  const uint64x2_t high = vceqq_u64(vreinterpretq_u64_u8(vld1q_u8(base + 16)),
                                    vreinterpretq_u64_u8(vld1q_u8(page + 16)));
  return vcombine_u32(vmovn_u64(low), vmovn_u64(high));
}

/// A bit for each of the 8 words of 64 bytes that differ.
inline std::uint64_t Differ64(const std::uint8_t* base, const std::uint8_t* page) noexcept {
  static constexpr std::uint16_t kBits[8] = {1, 2, 4, 8, 16, 32, 64, 128};
  const uint16x8_t equal = vcombine_u16(vmovn_u32(Equal32(base, page)),
                                        vmovn_u32(Equal32(base + 32, page + 32)));
  return vaddvq_u16(vbicq_u16(vld1q_u16(kBits), equal));
}

}  // namespace

void FindChangesNeon(const std::uint8_t* base, const std::uint8_t* page, std::size_t byte_count,
                     std::uint64_t* masks) noexcept {
  for (std::size_t at = 0; at < byte_count; at += 512) {
    const std::size_t part_bytes = byte_count - at < 512 ? byte_count - at : 512;
    std::uint64_t mask = 0;
    for (std::size_t part = 0; part < part_bytes; part += 64) {
      mask |= Differ64(base + at + part, page + at + part) << (part / 8);
    }
    *masks++ = mask;
  }
}

}  // namespace pagelane::kernel

#endif  // defined(__aarch64__)
