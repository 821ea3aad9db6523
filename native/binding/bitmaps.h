#pragma once

#include <napi.h>

namespace pagelane::binding {

/// Functions of src/native.ts that work on dirty bitmaps. Their words may be shared by threads.
Napi::Value FindRuns(const Napi::CallbackInfo& info);
Napi::Value CountBits(const Napi::CallbackInfo& info);
Napi::Value FindBit(const Napi::CallbackInfo& info);
Napi::Value MergeBits(const Napi::CallbackInfo& info);
Napi::Value TakeBits(const Napi::CallbackInfo& info);

}  // namespace pagelane::binding
