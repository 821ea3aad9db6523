#include "kernel/cpu.h"

namespace pagelane::kernel {

const CpuFeatures& DetectCpu() noexcept {
  static const CpuFeatures features = [] {
    CpuFeatures found;
#if defined(__x86_64__)
    __builtin_cpu_init();
    found.has_avx2 = __builtin_cpu_supports("avx2") != 0;
    found.has_bits = found.has_avx2 && __builtin_cpu_supports("bmi") != 0 &&
                     __builtin_cpu_supports("popcnt") != 0;
    found.has_avx512 =
        __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512bw") != 0;
    found.has_avx512_bits = found.has_avx512 && found.has_bits &&
                            __builtin_cpu_supports("avx512vbmi") != 0 &&
                            __builtin_cpu_supports("avx512dq") != 0 &&
                            __builtin_cpu_supports("avx512vl") != 0 &&
                            __builtin_cpu_supports("avx512vbmi2") != 0 &&
                            __builtin_cpu_supports("avx512vpopcntdq") != 0;
#elif defined(__aarch64__)
    found.has_neon = true;  // part of the architecture's base
#endif
    return found;
  }();
  return features;
}

}  // namespace pagelane::kernel
