#include "binding/kernels.h"

#include <span>

#include "binding/arguments.h"
#include "binding/variant_argument.h"
#include "kernel/bitmap.h"
#include "kernel/compress.h"
#include "kernel/delta.h"
#include "kernel/fill_page.h"
#include "kernel/hash.h"
#include "kernel/similarity.h"
#include "kernel/zero_page.h"

namespace pagelane::binding {

namespace {

/// Sets `name` to the chosen variant and `list` to all that run here.
template <typename Variant>
void SetVariants(Napi::Object& features, const char* name, const char* list,
                 std::span<const Variant> variants, const Variant& fastest) {
  Napi::Array names = Napi::Array::New(features.Env(), variants.size());
  for (std::size_t i = 0; i < variants.size(); i++) {
    names.Set(static_cast<std::uint32_t>(i), variants[i].name);
  }
  features.Set(name, fastest.name);
  features.Set(list, names);
}

/// One page.
std::span<std::uint8_t> ReadPage(Arguments& arguments, std::size_t index,
                                 const char* name) noexcept {
  const std::span<std::uint8_t> page = arguments.Bytes(index, name);
  if (!arguments.is_wrong() && (page.empty() || page.size() % 64 != 0)) {
    arguments.WrongRange("\"%s\" must have a multiple of 64 bytes: has %zu", name, page.size());
  }
  return page;
}

}  // namespace

Napi::Value Features(const Napi::CallbackInfo& info) {
  Napi::Object features = Napi::Object::New(info.Env());
  SetVariants(features, "zeroPage", "zeroPageVariants", kernel::ZeroPageVariants(),
              kernel::FastestZeroPage());
  SetVariants(features, "fillPage", "fillPageVariants", kernel::FillPageVariants(),
              kernel::FastestFillPage());
  SetVariants(features, "delta", "deltaVariants", kernel::DeltaVariants(),
              kernel::FastestDelta());
  SetVariants(features, "similarity", "similarityVariants", kernel::SimilarityVariants(),
              kernel::FastestSimilarity());
  SetVariants(features, "bitmap", "bitmapVariants", kernel::BitmapVariants(),
              kernel::FastestBitmap());
  SetVariants(features, "hash", "hashVariants", kernel::HashVariants(), kernel::FastestHash());
  features.Set("lz4", kernel::Lz4Version());
  features.Set("zstd", kernel::ZstdVersion());
  features.Set("xxhash", kernel::HashVersion());
  return features;
}

Napi::Value FindZeroPages(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "scan pages");
  const std::span<std::uint8_t> pages = arguments.Bytes(0, "pages");
  const auto page_bytes =
      static_cast<std::size_t>(arguments.Integer(1, "pageBytes", 64, INT32_MAX));
  const std::span<std::uint32_t> bitmap = arguments.Uint32s(2, "bitmap");
  const auto* variant = ReadVariant(arguments, 3, kernel::ZeroPageVariants(),
                                    kernel::FastestZeroPage(), "zeroPageVariants");
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
                                                            bitmap, variant->test)));
}

Napi::Value IsFillPage(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "test page");
  const std::span<std::uint8_t> page = ReadPage(arguments, 0, "page");
  const auto* variant = ReadVariant(arguments, 1, kernel::FillPageVariants(),
                                    kernel::FastestFillPage(), "fillPageVariants");
  if (arguments.is_wrong()) {
    return info.Env().Undefined();
  }
  return Napi::Boolean::New(info.Env(),
                            kernel::IsFillPage(page.data(), page.size(), variant->test));
}

Napi::Value EncodeDelta(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "encode delta");
  const std::span<std::uint8_t> base = ReadPage(arguments, 0, "base");
  const std::span<std::uint8_t> page = ReadPage(arguments, 1, "page");
  const std::span<std::uint8_t> out = arguments.Bytes(2, "out");
  const auto* variant = ReadVariant(arguments, 3, kernel::DeltaVariants(), kernel::FastestDelta(),
                                    "deltaVariants");
  arguments.Require(base.size() == page.size(), "\"base\" and \"page\" must be of one size");
  if (arguments.is_wrong()) {
    return info.Env().Undefined();
  }
  const kernel::DeltaResult delta = kernel::EncodeDelta(
      base.data(), page.data(), page.size(), out.data(), out.size(), variant->find);
  return Napi::Number::New(info.Env(), delta.fits ? static_cast<double>(delta.bytes) : -1);
}

Napi::Value ApplyDelta(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "apply delta");
  const std::span<std::uint8_t> delta = arguments.Bytes(0, "delta");
  const std::span<std::uint8_t> page = ReadPage(arguments, 1, "page");
  if (arguments.is_wrong()) {
    return info.Env().Undefined();
  }
  return Napi::Boolean::New(
      info.Env(), kernel::ApplyDelta(delta.data(), delta.size(), page.data(), page.size()));
}

Napi::Value FindFeatures(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "find features");
  const std::span<std::uint8_t> page = ReadPage(arguments, 0, "page");
  const std::span<std::uint32_t> features = arguments.Uint32s(1, "features");
  const auto* variant = ReadVariant(arguments, 2, kernel::SimilarityVariants(),
                                    kernel::FastestSimilarity(), "similarityVariants");
  arguments.Require(features.size() == kernel::kFeatures, "\"features\" must have 4 elements");
  if (!arguments.is_wrong()) {
    variant->find(page.data(), page.size(), features.data());
  }
  return info.Env().Undefined();
}

Napi::Value Hash64(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "hash bytes");
  const std::span<std::uint8_t> bytes = arguments.Bytes(0, "bytes");
  const std::uint64_t seed = arguments.BigUint64(1, "seed");
  const auto* variant = ReadVariant(arguments, 2, kernel::HashVariants(), kernel::FastestHash(),
                                    "hashVariants");
  if (arguments.is_wrong()) {
    return info.Env().Undefined();
  }
  return Napi::BigInt::New(info.Env(),
                           kernel::Hash64(bytes.data(), bytes.size(), seed, variant->hash));
}

}  // namespace pagelane::binding
