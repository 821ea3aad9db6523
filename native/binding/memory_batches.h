#pragma once

#include <napi.h>

#include <memory>

#include "kernel/memory_target.h"

namespace pagelane::binding {

/// `MemoryTarget` of src/native.ts.
class MemoryTarget : public Napi::ObjectWrap<MemoryTarget> {
 public:
  static Napi::Function Define(napi_env env);

  /// The target that `value` is; null, and nothing thrown, if it is none.
  static MemoryTarget* From(napi_env env, napi_value value) noexcept;

  explicit MemoryTarget(const Napi::CallbackInfo& info);

  const std::shared_ptr<kernel::MemoryTarget>& target() const noexcept { return target_; }

 private:
  Napi::Value AddHeld(const Napi::CallbackInfo& info);

  Napi::ObjectReference memory_;
  std::shared_ptr<kernel::MemoryTarget> target_;
};

/// `encodePages`, `hashPages` and `applyBatch` of src/native.ts.
Napi::Value EncodePages(const Napi::CallbackInfo& info);
Napi::Value HashPages(const Napi::CallbackInfo& info);
Napi::Value ApplyBatch(const Napi::CallbackInfo& info);

}  // namespace pagelane::binding
