#include "binding/kernels.h"

#include <string_view>

#include "binding/arguments.h"
#include "binding/instance.h"
#include "kernel/compress.h"
#include "kernel/hash.h"
#include "kernel/thread_pool.h"
#include "kernel/zero_page.h"

namespace pagelane::binding {

namespace {

/// The variant named by the argument, the chosen one if it is absent; null if it is wrong.
kernel::ZeroTest ReadVariant(Arguments& arguments, std::size_t index) noexcept {
  napi_valuetype type = napi_undefined;
  napi_typeof(arguments.env(), arguments.value(index), &type);
  if (type == napi_undefined) {
    return kernel::FastestZeroPage().test;
  }
  char name[16] = "";
  std::size_t byte_count = 0;
  if (napi_get_value_string_utf8(arguments.env(), arguments.value(index), name, sizeof name,
                                 &byte_count) != napi_ok) {
    arguments.WrongType("variant", "a string");
    return nullptr;
  }
  for (const kernel::ZeroPageVariant& variant : kernel::ZeroPageVariants()) {
    if (std::string_view(name, byte_count) == variant.name) {
      return variant.test;
    }
  }
  arguments.WrongRange("\"variant\" must be one of features().zeroPageVariants: is \"%s\"", name);
  return nullptr;
}

}  // namespace

Napi::Value Features(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  const auto variants = kernel::ZeroPageVariants();
  Napi::Array names = Napi::Array::New(env, variants.size());
  for (std::size_t i = 0; i < variants.size(); i++) {
    names.Set(static_cast<std::uint32_t>(i), variants[i].name);
  }
  Napi::Object features = Napi::Object::New(env);
  features.Set("zeroPage", kernel::FastestZeroPage().name);
  features.Set("zeroPageVariants", names);
  features.Set("lz4", kernel::Lz4Version());
  features.Set("zstd", kernel::ZstdVersion());
  features.Set("xxhash", kernel::HashVersion());
  return features;
}

Napi::Value SetThreads(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "set threads");
  const std::int64_t count = arguments.Integer(0, "count", 1, kernel::kThreadsMax);
  if (!arguments.is_wrong() &&
      !Instance::Of(info.Env()).threads().SetCount(static_cast<std::size_t>(count))) {
    ThrowError(info.Env(), "ERR_THREAD", "Cannot set threads: one could not be started");
  }
  return info.Env().Undefined();
}

Napi::Value FindZeroPages(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "scan pages");
  const std::span<std::uint8_t> pages = arguments.Bytes(0, "pages");
  const auto page_bytes =
      static_cast<std::size_t>(arguments.Integer(1, "pageBytes", 64, INT32_MAX));
  const std::span<std::uint32_t> bitmap = arguments.Uint32s(2, "bitmap");
  const kernel::ZeroTest test = ReadVariant(arguments, 3);
  arguments.Require(page_bytes % 64 == 0, "\"pageBytes\" must be a multiple of 64");
  arguments.Require(pages.size() % page_bytes == 0, "\"pages\" must hold whole pages");
  const std::size_t page_count = pages.size() / page_bytes;
  arguments.Require(bitmap.size() >= (page_count + 31) / 32,
                    "\"bitmap\" must hold one bit per page");
  if (arguments.is_wrong()) {
    return info.Env().Undefined();
  }
  return Napi::Number::New(
      info.Env(), static_cast<double>(kernel::FindZeroPages(pages.data(), page_count, page_bytes,
                                                            bitmap, test)));
}

Napi::Value Hash64(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "hash bytes");
  const std::span<std::uint8_t> bytes = arguments.Bytes(0, "bytes");
  const std::uint64_t seed = arguments.BigUint64(1, "seed");
  if (arguments.is_wrong()) {
    return info.Env().Undefined();
  }
  return Napi::BigInt::New(info.Env(), kernel::Hash64(bytes.data(), bytes.size(), seed));
}

}  // namespace pagelane::binding
