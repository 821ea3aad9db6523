#pragma once

#include <napi.h>

#include <memory>

#include "kernel/page_digests.h"
#include "kernel/write_tracker.h"

namespace pagelane::binding {

/// `WriteTracker` of src/native.ts.
class WriteTracker : public Napi::ObjectWrap<WriteTracker> {
 public:
  static Napi::Function Define(napi_env env);
  explicit WriteTracker(const Napi::CallbackInfo& info);

 private:
  Napi::Value Protect(const Napi::CallbackInfo& info);
  Napi::Value Collect(const Napi::CallbackInfo& info);
  Napi::Value Stop(const Napi::CallbackInfo& info);

  std::shared_ptr<const kernel::WriteTracker> tracker_;
};

/// `PageDigests` of src/native.ts.
///
/// A task keeps the digests' shared pointer, and pins the script's object as well: it holds the
/// memory's, and so its buffers.
class PageDigests : public Napi::ObjectWrap<PageDigests> {
 public:
  static Napi::Function Define(napi_env env);
  /// The digests that `value` is; null, and nothing thrown, if it is none.
  static PageDigests* From(napi_env env, napi_value value) noexcept;
  explicit PageDigests(const Napi::CallbackInfo& info);

  const std::shared_ptr<kernel::PageDigests>& digests() const noexcept { return digests_; }

 private:
  Napi::Value Note(const Napi::CallbackInfo& info);
  Napi::Value Compare(const Napi::CallbackInfo& info);

  std::shared_ptr<kernel::PageDigests> digests_;
  Napi::ObjectReference memory_;
};

}  // namespace pagelane::binding
