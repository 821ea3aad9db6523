#pragma once

#include <node_api.h>

namespace pagelane::binding {

/// The C++ object of a script object that its constructor marked with `tag`; null, and nothing
/// thrown, if it is none.
template <typename Wrapped>
Wrapped* Untag(napi_env env, napi_value value, const napi_type_tag& tag) noexcept {
  napi_valuetype type = napi_undefined;
  bool is_tagged = false;
  void* wrapped = nullptr;
  if (napi_typeof(env, value, &type) != napi_ok || type != napi_object ||
      napi_check_object_type_tag(env, value, &tag, &is_tagged) != napi_ok || !is_tagged ||
      napi_unwrap(env, value, &wrapped) != napi_ok) {
    return nullptr;
  }
  return static_cast<Wrapped*>(wrapped);
}

}  // namespace pagelane::binding
