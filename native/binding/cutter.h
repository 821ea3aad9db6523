#pragma once

#include <napi.h>

#include <memory>

#include "binding/arguments.h"
#include "kernel/qemu_ram.h"

namespace pagelane::binding {

/// `RamCutter` of src/native.ts.
class RamCutter : public Napi::ObjectWrap<RamCutter> {
 public:
  static Napi::Function Define(napi_env env);

  explicit RamCutter(const Napi::CallbackInfo& info);

 private:
  Napi::Value SetBlocks(const Napi::CallbackInfo& info);
  Napi::Value Begin(const Napi::CallbackInfo& info);
  Napi::Value Cut(const Napi::CallbackInfo& info);
  Napi::Value MarkSectionBegin(const Napi::CallbackInfo& info);
  Napi::Value MarkSectionEnd(const Napi::CallbackInfo& info);
  Napi::Value SetInside(const Napi::CallbackInfo& info);
  Napi::Value BatchEntries(const Napi::CallbackInfo& info);
  Napi::Value Seal(const Napi::CallbackInfo& info);
  Napi::Value BeginEpoch(const Napi::CallbackInfo& info);
  Napi::Value TakeHeld(const Napi::CallbackInfo& info);
  Napi::Value SetHolding(const Napi::CallbackInfo& info);
  Napi::Value SetReach(const Napi::CallbackInfo& info);
  Napi::Value HeldPages(const Napi::CallbackInfo& info);
  Napi::Value Release(const Napi::CallbackInfo& info);
  Napi::Value IsInsideRecord(const Napi::CallbackInfo& info);
  Napi::Value LastBlock(const Napi::CallbackInfo& info);

  Napi::Value Mark(const Napi::CallbackInfo& info, bool is_begin);
  bool HasSlot(napi_env env) noexcept;

  std::unique_ptr<kernel::RamCutter> cutter_;
  Napi::Reference<Napi::Value> slot_;
  std::size_t slot_bytes_ = 0;
  std::uint32_t page_bits_ = 0;
};

}  // namespace pagelane::binding
