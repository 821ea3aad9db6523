#include "binding/arguments.h"

#include <cmath>
#include <cstdarg>
#include <cstdio>

namespace pagelane::binding {

namespace {

constexpr std::size_t kMessageBytes = 256;

}  // namespace

void ThrowTypeError(napi_env env, const char* message) noexcept {
  napi_throw_type_error(env, nullptr, message);
}

void ThrowRangeError(napi_env env, const char* message) noexcept {
  napi_throw_range_error(env, nullptr, message);
}

void ThrowError(napi_env env, const char* code, const char* message) noexcept {
  napi_throw_error(env, code, message);
}

napi_value MakeSystemError(napi_env env, const char* code, const char* message,
                           int error) noexcept {
  napi_value code_value = nullptr;
  napi_value text = nullptr;
  napi_value made = nullptr;
  napi_create_string_utf8(env, code, NAPI_AUTO_LENGTH, &code_value);
  napi_create_string_utf8(env, message, NAPI_AUTO_LENGTH, &text);
  napi_create_error(env, code_value, text, &made);
  if (error != 0) {
    napi_value number = nullptr;
    napi_create_int32(env, error, &number);
    napi_set_named_property(env, made, "errno", number);
  }
  return made;
}

bool LookAtArray(napi_env env, napi_value value, napi_typedarray_type type, void** data,
                 std::size_t* length) noexcept {
  bool is_array = false;
  if (napi_is_typedarray(env, value, &is_array) != napi_ok || !is_array) {
    return false;
  }
  napi_typedarray_type found;
  napi_value buffer;
  std::size_t offset;
  if (napi_get_typedarray_info(env, value, &found, length, data, &buffer, &offset) != napi_ok ||
      found != type) {
    return false;
  }
  bool is_own = false;
  if (napi_is_arraybuffer(env, buffer, &is_own) != napi_ok || !is_own) {
    return false;  // a SharedArrayBuffer: another thread could write what was just checked
  }
  bool is_detached = false;
  if (napi_is_detached_arraybuffer(env, buffer, &is_detached) != napi_ok) {
    return false;
  }
  if (is_detached || *data == nullptr) {
    *data = nullptr;
    *length = 0;
  }
  return true;
}

void* Arguments::Array(std::size_t index, const char* name, napi_typedarray_type type,
                       const char* wanted, std::size_t* length) noexcept {
  *length = 0;
  if (is_wrong_) {
    return nullptr;
  }
  void* data = nullptr;
  if (!LookAtArray(env_, value(index), type, &data, length)) {
    *length = 0;
    WrongType(name, wanted);
    return nullptr;
  }
  return data;
}

std::span<std::uint8_t> Arguments::Bytes(std::size_t index, const char* name) noexcept {
  std::size_t length;
  void* data = Array(index, name, napi_uint8_array, "a Uint8Array that is not shared", &length);
  return {static_cast<std::uint8_t*>(data), length};
}

std::span<std::uint8_t> Arguments::LastingBytes(std::size_t index, const char* name) noexcept {
  const std::span<std::uint8_t> bytes = Bytes(index, name);
  RequireFixed(index, name, "a Uint8Array of fixed length");
  return is_wrong_ ? std::span<std::uint8_t>() : bytes;
}

std::span<std::uint32_t> Arguments::LastingUint32s(std::size_t index, const char* name) noexcept {
  const std::span<std::uint32_t> words = Uint32s(index, name);
  RequireFixed(index, name, "a Uint32Array of fixed length");
  return is_wrong_ ? std::span<std::uint32_t>() : words;
}

void Arguments::RequireFixed(std::size_t index, const char* name, const char* wanted) noexcept {
  if (is_wrong_) {
    return;
  }
  napi_typedarray_type type;
  std::size_t length;
  std::size_t offset;
  void* data;
  napi_value buffer;
  napi_value resizable;
  bool is_resizable = false;
  // Absent, and so not a boolean, where the engine has no resizable buffers yet.
  if (napi_get_typedarray_info(env_, value(index), &type, &length, &data, &buffer, &offset) ==
          napi_ok &&
      napi_get_named_property(env_, buffer, "resizable", &resizable) == napi_ok &&
      napi_get_value_bool(env_, resizable, &is_resizable) == napi_ok && is_resizable) {
    WrongType(name, wanted);
  }
}

std::span<std::int32_t> Arguments::Int32s(std::size_t index, const char* name,
                                          std::size_t count_min) noexcept {
  std::size_t length;
  void* data = Array(index, name, napi_int32_array, "an Int32Array that is not shared", &length);
  if (!is_wrong_ && length < count_min) {
    WrongRange("\"%s\" must have %zu elements: has %zu", name, count_min, length);
    return {};
  }
  return {static_cast<std::int32_t*>(data), length};
}

std::span<std::uint32_t> Arguments::Uint32s(std::size_t index, const char* name) noexcept {
  std::size_t length;
  void* data =
      Array(index, name, napi_uint32_array, "a Uint32Array that is not shared", &length);
  return {static_cast<std::uint32_t*>(data), length};
}

std::span<double> Arguments::Doubles(std::size_t index, const char* name) noexcept {
  std::size_t length;
  void* data =
      Array(index, name, napi_float64_array, "a Float64Array that is not shared", &length);
  return {static_cast<double*>(data), length};
}

std::int64_t Arguments::Integer(std::size_t index, const char* name, std::int64_t min,
                                std::int64_t max) noexcept {
  if (is_wrong_) {
    return min;
  }
  double number = 0;
  if (napi_get_value_double(env_, value(index), &number) != napi_ok) {
    WrongType(name, "a number");
    return min;
  }
  // NaN fails the first comparison; the limits are far below what a double holds exactly.
  if (!(number >= static_cast<double>(min) && number <= static_cast<double>(max)) ||
      number != std::trunc(number)) {
    WrongRange("\"%s\" must be an integer from %lld to %lld: is %g", name,
               static_cast<long long>(min), static_cast<long long>(max), number);
    return min;
  }
  return static_cast<std::int64_t>(number);
}

std::uint64_t Arguments::BigUint64(std::size_t index, const char* name) noexcept {
  if (is_wrong_) {
    return 0;
  }
  std::uint64_t number = 0;
  bool is_lossless = false;
  if (napi_get_value_bigint_uint64(env_, value(index), &number, &is_lossless) != napi_ok) {
    WrongType(name, "a bigint");
    return 0;
  }
  if (!is_lossless) {
    WrongRange("\"%s\" must be from 0 to 2^64 - 1", name);
    return 0;
  }
  return number;
}

bool Arguments::Boolean(std::size_t index, const char* name) noexcept {
  if (is_wrong_) {
    return false;
  }
  bool is_set = false;
  if (napi_get_value_bool(env_, value(index), &is_set) != napi_ok) {
    WrongType(name, "a boolean");
  }
  return is_set;
}

void Arguments::Require(bool is_met, const char* rule) noexcept {
  if (!is_met) {
    WrongRange("%s", rule);
  }
}

void Arguments::Refuse(const char* code, const char* why) noexcept {
  if (is_wrong_) {
    return;
  }
  is_wrong_ = true;
  char message[2 * kMessageBytes];
  std::snprintf(message, sizeof message, "Cannot %s: %s", task_, why);
  ThrowError(env_, code, message);
}

void Arguments::WrongType(const char* name, const char* wanted) noexcept {
  if (is_wrong_) {
    return;
  }
  is_wrong_ = true;
  char message[kMessageBytes];
  std::snprintf(message, sizeof message, "Cannot %s: \"%s\" must be %s", task_, name, wanted);
  ThrowTypeError(env_, message);
}

void Arguments::WrongRange(const char* format, ...) noexcept {
  if (is_wrong_) {
    return;
  }
  is_wrong_ = true;
  char rule[kMessageBytes];
  va_list values;
  va_start(values, format);
  std::vsnprintf(rule, sizeof rule, format, values);
  va_end(values);
  char message[2 * kMessageBytes];
  std::snprintf(message, sizeof message, "Cannot %s: %s", task_, rule);
  ThrowRangeError(env_, message);
}

}  // namespace pagelane::binding
