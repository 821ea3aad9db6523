#pragma once

#include <napi.h>

#include <cstdint>
#include <memory>

#include "kernel/page_store.h"
#include "kernel/store_index.h"

namespace pagelane::binding {

/// `PageStore` of src/native.ts: the destination's side.
class PageStore : public Napi::ObjectWrap<PageStore> {
 public:
  static Napi::Function Define(napi_env env);
  /// The store that `value` is; null, and nothing thrown, if it is none.
  static PageStore* From(napi_env env, napi_value value) noexcept;

  explicit PageStore(const Napi::CallbackInfo& info);

  const std::shared_ptr<kernel::PageStore>& store() const noexcept { return store_; }

 private:
  std::shared_ptr<kernel::PageStore> store_;
};

/// `StoreIndex` of src/native.ts: the source's side.
class StoreIndex : public Napi::ObjectWrap<StoreIndex> {
 public:
  static Napi::Function Define(napi_env env);
  static StoreIndex* From(napi_env env, napi_value value) noexcept;

  explicit StoreIndex(const Napi::CallbackInfo& info);

  const std::shared_ptr<kernel::StoreIndex>& index() const noexcept { return index_; }

 private:
  std::shared_ptr<kernel::StoreIndex> index_;
};

}  // namespace pagelane::binding
