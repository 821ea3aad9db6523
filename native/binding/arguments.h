#pragma once

#include <napi.h>

#include <cstddef>
#include <cstdint>
#include <span>

namespace pagelane::binding {

/// Throws with an optional `code`; a script exception that is already on its way stays.
void ThrowTypeError(napi_env env, const char* message) noexcept;
void ThrowRangeError(napi_env env, const char* message) noexcept;
void ThrowError(napi_env env, const char* code, const char* message) noexcept;

/// Makes an Error with `code`, and with `errno` unless that is 0.
napi_value MakeSystemError(napi_env env, const char* code, const char* message,
                           int error) noexcept;

/// Looks at a typed array.
///
/// Promise: false, and nothing thrown, if `value` is no typed array of `type`, or if its memory is
///          shared between threads. A detached array has no elements.
bool LookAtArray(napi_env env, napi_value value, napi_typedarray_type type, void** data,
                 std::size_t* length) noexcept;

/// Reads the arguments of one call, in any order.
///
/// The first that is wrong throws, and all later reads return nothing: so a function reads what it
/// needs, asks `is_wrong` once, and then works.
class Arguments {
 public:
  /// task: what the call is about, for messages, as in "Cannot <task>: …".
  Arguments(const Napi::CallbackInfo& info, const char* task) noexcept
      : info_(info), env_(info.Env()), task_(task) {}

  napi_env env() const noexcept { return env_; }
  napi_value value(std::size_t index) const { return info_[index]; }
  bool is_wrong() const noexcept { return is_wrong_; }

  std::span<std::uint8_t> Bytes(std::size_t index, const char* name) noexcept;
  /// Bytes that are used after the call, and so must not be able to shrink.
  std::span<std::uint8_t> LastingBytes(std::size_t index, const char* name) noexcept;
  std::span<std::int32_t> Int32s(std::size_t index, const char* name,
                                 std::size_t count_min) noexcept;
  std::span<std::uint32_t> Uint32s(std::size_t index, const char* name) noexcept;
  std::span<std::uint32_t> LastingUint32s(std::size_t index, const char* name) noexcept;
  std::span<double> Doubles(std::size_t index, const char* name) noexcept;
  std::int64_t Integer(std::size_t index, const char* name, std::int64_t min,
                       std::int64_t max) noexcept;
  std::uint64_t BigUint64(std::size_t index, const char* name) noexcept;
  bool Boolean(std::size_t index, const char* name) noexcept;

  /// Throws a RangeError if `is_met` is false; `rule` follows "Cannot <task>: ".
  void Require(bool is_met, const char* rule) noexcept;
  /// Throws an Error with a `code`; `why` follows "Cannot <task>: ".
  void Refuse(const char* code, const char* why) noexcept;
  void WrongType(const char* name, const char* wanted) noexcept;
  void WrongRange(const char* format, ...) noexcept __attribute__((format(printf, 2, 3)));

 private:
  /// Throws a TypeError if the memory of the typed array could shrink.
  void RequireFixed(std::size_t index, const char* name, const char* wanted) noexcept;
  void* Array(std::size_t index, const char* name, napi_typedarray_type type, const char* wanted,
              std::size_t* length) noexcept;

  const Napi::CallbackInfo& info_;
  napi_env env_;
  const char* task_;
  bool is_wrong_ = false;
};

}  // namespace pagelane::binding
