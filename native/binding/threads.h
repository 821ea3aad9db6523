#pragma once

#include <napi.h>

namespace pagelane::binding {

/// Functions of src/native.ts about the addon's own threads.
Napi::Value SetThreads(const Napi::CallbackInfo& info);
Napi::Value UsableProcessors(const Napi::CallbackInfo& info);

}  // namespace pagelane::binding
