#include "binding/bitmaps.h"

#include <span>

#include "binding/arguments.h"
#include "binding/variant_argument.h"
#include "kernel/bitmap.h"

namespace pagelane::binding {

namespace {

/// More than any array has bits.
constexpr std::int64_t kPagesMax = std::int64_t{1} << 52;

/// 32-bit words of a dirty bitmap. Its 64-bit words must be whole, and where they can be read.
struct Words {
  std::span<std::uint32_t> words;
  bool is_shared = false;
};

Words ReadWords(Arguments& arguments, std::size_t index, const char* name) noexcept {
  if (arguments.is_wrong()) {
    return {};
  }
  const napi_env env = arguments.env();
  const napi_value value = arguments.value(index);
  napi_typedarray_type type;
  std::size_t length = 0;
  std::size_t offset;
  void* data = nullptr;
  napi_value buffer;
  bool is_array = false;
  bool is_own = false;
  bool is_detached = false;
  if (napi_is_typedarray(env, value, &is_array) != napi_ok || !is_array ||
      napi_get_typedarray_info(env, value, &type, &length, &data, &buffer, &offset) != napi_ok ||
      type != napi_uint32_array || napi_is_arraybuffer(env, buffer, &is_own) != napi_ok ||
      napi_is_detached_arraybuffer(env, buffer, &is_detached) != napi_ok) {
    arguments.WrongType(name, "a Uint32Array");
    return {};
  }
  if (is_detached || data == nullptr) {
    return {};
  }
  if (length % 2 != 0 || reinterpret_cast<std::uintptr_t>(data) % sizeof(std::uint64_t) != 0) {
    arguments.WrongRange("\"%s\" must have whole words of 64 bits, aligned to 8 bytes", name);
    return {};
  }
  return {{static_cast<std::uint32_t*>(data), length}, !is_own};
}

/// Arguments 0 to 2: words, and the range of pages that counts.
kernel::BitmapRange ReadRange(Arguments& arguments) noexcept {
  const Words words = ReadWords(arguments, 0, "words");
  const std::int64_t from = arguments.Integer(1, "from", 0, kPagesMax);
  const std::int64_t to = arguments.Integer(2, "to", 0, kPagesMax);
  arguments.Require(from <= to, "\"to\" must be >= \"from\"");
  arguments.Require(static_cast<std::uint64_t>(to) <= 32 * words.words.size(),
                    "\"words\" must hold one bit per page");
  return {reinterpret_cast<const std::uint64_t*>(words.words.data()),
          static_cast<std::uint64_t>(from), static_cast<std::uint64_t>(to)};
}

const kernel::BitmapVariant* ReadBitmapVariant(Arguments& arguments, std::size_t index) noexcept {
  return ReadVariant(arguments, index, kernel::BitmapVariants(), kernel::FastestBitmap(),
                     "bitmapVariants");
}

/// Arguments 0 and 1: two bitmaps of one size.
struct TwoBitmaps {
  Words into;
  Words from;
};

TwoBitmaps ReadTwo(Arguments& arguments) noexcept {
  const TwoBitmaps two = {ReadWords(arguments, 0, "into"), ReadWords(arguments, 1, "from")};
  arguments.Require(two.into.words.size() == two.from.words.size(),
                    "\"into\" and \"from\" must be of one size");
  return two;
}

}  // namespace

Napi::Value FindRuns(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "find runs");
  const kernel::BitmapRange range = ReadRange(arguments);
  const std::span<double> runs = arguments.Doubles(3, "runs");
  const auto* variant = ReadBitmapVariant(arguments, 4);
  arguments.Require(!runs.empty() && runs.size() % 2 == 0,
                    "\"runs\" must have two elements per run, and at least one run");
  if (arguments.is_wrong()) {
    return info.Env().Undefined();
  }
  const std::size_t found = kernel::FindRuns(range, runs.data(), runs.size() / 2, *variant);
  return Napi::Number::New(info.Env(), static_cast<double>(found));
}

Napi::Value CountBits(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "count pages");
  const kernel::BitmapRange range = ReadRange(arguments);
  const auto* variant = ReadBitmapVariant(arguments, 3);
  if (arguments.is_wrong()) {
    return info.Env().Undefined();
  }
  return Napi::Number::New(info.Env(), static_cast<double>(kernel::CountBits(range, *variant)));
}

Napi::Value FindBit(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "find page");
  const kernel::BitmapRange range = ReadRange(arguments);
  const std::int64_t wanted = arguments.Integer(3, "pages", 0, kPagesMax);
  const auto* variant = ReadBitmapVariant(arguments, 4);
  if (arguments.is_wrong()) {
    return info.Env().Undefined();
  }
  const auto bit_count = static_cast<std::uint64_t>(wanted);
  const kernel::BitPlace place = kernel::FindBit(range, bit_count, *variant);
  const bool is_found = place.bit_count == bit_count;
  return Napi::Number::New(info.Env(), is_found ? static_cast<double>(place.end)
                                                : -1 - static_cast<double>(place.bit_count));
}

Napi::Value MergeBits(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "merge bitmaps");
  const TwoBitmaps two = ReadTwo(arguments);
  if (!arguments.is_wrong()) {
    kernel::MergeBits(two.into.words.data(), two.from.words.data(), two.into.words.size(),
                      two.into.is_shared);
  }
  return info.Env().Undefined();
}

Napi::Value TakeBits(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "take pages");
  const TwoBitmaps two = ReadTwo(arguments);
  if (!arguments.is_wrong()) {
    kernel::TakeBits(two.into.words.data(), two.from.words.data(), two.into.words.size(),
                     two.into.is_shared);
  }
  return info.Env().Undefined();
}

}  // namespace pagelane::binding
