#pragma once

#include <span>
#include <string_view>

#include "binding/arguments.h"

namespace pagelane::binding {

/// The variant named by the argument, `fastest` if it is absent; null if it is wrong.
///
/// list: the field of features() that names them.
template <typename Variant>
const Variant* ReadVariant(Arguments& arguments, std::size_t index,
                           std::span<const Variant> variants, const Variant& fastest,
                           const char* list) noexcept {
  napi_valuetype type = napi_undefined;
  napi_typeof(arguments.env(), arguments.value(index), &type);
  if (type == napi_undefined) {
    return &fastest;
  }
  char name[16] = "";
  std::size_t byte_count = 0;
  if (napi_get_value_string_utf8(arguments.env(), arguments.value(index), name, sizeof name,
                                 &byte_count) != napi_ok) {
    arguments.WrongType("variant", "a string");
    return nullptr;
  }
  for (const Variant& variant : variants) {
    if (std::string_view(name, byte_count) == variant.name) {
      return &variant;
    }
  }
  arguments.WrongRange("\"variant\" must be one of features().%s: is \"%s\"", list, name);
  return nullptr;
}

}  // namespace pagelane::binding
