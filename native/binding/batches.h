#pragma once

#include <napi.h>

namespace pagelane::binding {

/// Functions on batches of src/native.ts.
Napi::Value EncodeBatch(const Napi::CallbackInfo& info);
Napi::Value InspectBatch(const Napi::CallbackInfo& info);
Napi::Value DecodeBatch(const Napi::CallbackInfo& info);

}  // namespace pagelane::binding
