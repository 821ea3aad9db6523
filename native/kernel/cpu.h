#pragma once

namespace pagelane::kernel {

/// What the processor, and the operating system's saved registers, allow this process to run.
struct CpuFeatures {
  bool has_avx2 = false;
  bool has_bits = false;    // AVX2 with BMI and POPCNT
  bool has_avx512 = false;  // F and BW
  bool has_avx512_bits = false;  // DQ, VL, VBMI, VBMI2 and VPOPCNTDQ as well
  bool has_neon = false;
};

/// Asks the processor once; later calls return the same answer.
const CpuFeatures& DetectCpu() noexcept;

}  // namespace pagelane::kernel
