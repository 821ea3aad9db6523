#pragma once

namespace pagelane::kernel {

/// What the processor, and the operating system's saved registers, allow this process to run.
struct CpuFeatures {
  bool has_avx2 = false;
  bool has_avx512 = false;  // F and BW
  bool has_neon = false;
};

/// Asks the processor once; later calls return the same answer.
const CpuFeatures& DetectCpu() noexcept;

}  // namespace pagelane::kernel
