#pragma once

#include <napi.h>

namespace pagelane::binding {

/// `refuseMore` of src/native.ts.
Napi::Value RefuseMore(const Napi::CallbackInfo& info);

}  // namespace pagelane::binding
