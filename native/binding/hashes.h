#pragma once

#include <napi.h>

#include <memory>

#include "kernel/page_hashes.h"

namespace pagelane::binding {

/// `PageHashes` of src/native.ts.
class PageHashes : public Napi::ObjectWrap<PageHashes> {
 public:
  static Napi::Function Define(napi_env env);
  /// The hashes that `value` is; null, and nothing thrown, if it is none.
  static PageHashes* From(napi_env env, napi_value value) noexcept;

  explicit PageHashes(const Napi::CallbackInfo& info);

  const std::shared_ptr<kernel::PageHashes>& hashes() const noexcept { return hashes_; }

 private:
  std::shared_ptr<kernel::PageHashes> hashes_;
};

/// `comparePages` of src/native.ts.
Napi::Value ComparePages(const Napi::CallbackInfo& info);

}  // namespace pagelane::binding
