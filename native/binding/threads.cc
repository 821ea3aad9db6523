#include "binding/threads.h"

#include "binding/arguments.h"
#include "binding/instance.h"
#include "kernel/placement.h"
#include "kernel/thread_pool.h"

namespace pagelane::binding {

namespace {

bool IsAbsent(const Arguments& arguments, std::size_t index) noexcept {
  napi_valuetype type = napi_undefined;
  napi_typeof(arguments.env(), arguments.value(index), &type);
  return type == napi_undefined;
}

kernel::CpuSet ReadCpuSet(Arguments& arguments, std::size_t index) noexcept {
  kernel::CpuSet cpus;
  if (IsAbsent(arguments, index)) {
    return cpus;
  }
  const std::span<std::uint32_t> processors = arguments.Uint32s(index, "cpuSet");
  for (const std::uint32_t processor : processors) {
    if (processor >= kernel::kProcessorsMax) {
      arguments.WrongRange("\"cpuSet\" must have numbers below %zu: has %u",
                           kernel::kProcessorsMax, processor);
      return cpus;
    }
    cpus.Add(processor);
  }
  arguments.Require(!processors.empty(), "\"cpuSet\" must have a processor");
  return cpus;
}

std::optional<int> ReadNice(Arguments& arguments, std::size_t index) noexcept {
  if (IsAbsent(arguments, index)) {
    return std::nullopt;
  }
  return static_cast<int>(
      arguments.Integer(index, "priority", kernel::kNiceMin, kernel::kNiceMax));
}

/// Throws an Error with `code` and `errno`.
void ThrowRefusal(napi_env env, const kernel::Refusal& refusal) noexcept {
  const char* code = "ERR_THREAD";
  const char* text = "Cannot set threads: one could not be started";
  if (refusal.step == kernel::ThreadStep::kPin) {
    code = "ERR_THREAD_CPU_SET";
    text = "Cannot set threads: their processors were refused";
  } else if (refusal.step == kernel::ThreadStep::kNice) {
    code = "ERR_THREAD_PRIORITY";
    text = "Cannot set threads: their priority was refused";
  }
  napi_throw(env, MakeSystemError(env, code, text, refusal.error));
}

}  // namespace

Napi::Value SetThreads(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "set threads");
  const auto count =
      static_cast<std::size_t>(arguments.Integer(0, "count", 1, kernel::kThreadsMax));
  const kernel::Placement placement{ReadCpuSet(arguments, 1), ReadNice(arguments, 2)};
  if (!arguments.is_wrong()) {
    const kernel::Refusal refusal = Instance::Of(info.Env()).threads().Set(count, placement);
    if (refusal.error != 0) {
      ThrowRefusal(info.Env(), refusal);
    }
  }
  return info.Env().Undefined();
}

Napi::Value UsableProcessors(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  kernel::CpuSet usable;
  if (const int error = usable.ReadUsable(); error != 0) {
    ThrowRefusal(env, {kernel::ThreadStep::kPin, error});
    return env.Undefined();
  }
  Napi::Array numbers = Napi::Array::New(env);
  std::uint32_t count = 0;
  for (std::uint32_t processor = 0; processor < kernel::kProcessorsMax; processor++) {
    if (usable.Has(processor)) {
      numbers.Set(count++, processor);
    }
  }
  return numbers;
}

}  // namespace pagelane::binding
