#pragma once

#include <napi.h>

namespace pagelane::binding {

/// Functions of src/native.ts that are no more than their kernel.
Napi::Value Features(const Napi::CallbackInfo& info);
Napi::Value FindZeroPages(const Napi::CallbackInfo& info);
Napi::Value IsFillPage(const Napi::CallbackInfo& info);
Napi::Value EncodeDelta(const Napi::CallbackInfo& info);
Napi::Value ApplyDelta(const Napi::CallbackInfo& info);
Napi::Value FindFeatures(const Napi::CallbackInfo& info);
Napi::Value Hash64(const Napi::CallbackInfo& info);

}  // namespace pagelane::binding
