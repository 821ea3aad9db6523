#include "kernel/placement.h"

#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

namespace pagelane::kernel {

// A cpu_set_t has room for 1,024 processors only; the calls take longer sets of the same form.

int CpuSet::ReadUsable() noexcept {
  words_ = {};
  auto* set = reinterpret_cast<cpu_set_t*>(words_.data());
  return sched_getaffinity(0, sizeof words_, set) == 0 ? 0 : errno;
}

int CpuSet::Pin() const noexcept {
  const auto* set = reinterpret_cast<const cpu_set_t*>(words_.data());
  return sched_setaffinity(0, sizeof words_, set) == 0 ? 0 : errno;
}

Refusal Placement::Apply() const noexcept {
  if (!cpus.is_empty()) {
    if (const int error = cpus.Pin(); error != 0) {
      return {ThreadStep::kPin, error};
    }
  }
  if (nice.has_value()) {
    // Linux keeps a nice value per thread, and takes a thread's id for a process's.
    const auto thread_id = static_cast<id_t>(syscall(SYS_gettid));
    if (setpriority(PRIO_PROCESS, thread_id, *nice) != 0) {
      return {ThreadStep::kNice, errno};
    }
  }
  return {};
}

}  // namespace pagelane::kernel
