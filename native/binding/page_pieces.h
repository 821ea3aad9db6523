#pragma once

#include <napi.h>

#include <cstddef>
#include <cstdint>
#include <new>
#include <utility>

#include "binding/arguments.h"
#include "binding/instance.h"
#include "kernel/guest_memory.h"

namespace pagelane::binding {

/// Pages of a block that a thread works on, while others work on those beside.
struct PagePiece {
  std::size_t block = 0;
  std::uint64_t first_page = 0;
  std::uint64_t page_count = 0;
};

/// Reads (block, firstPage, pageCount) from the first three arguments. A piece begins and ends
/// where a word of a bitmap does, or a host page as well; the last ends with its block.
PagePiece ReadPiece(Arguments& arguments, const kernel::GuestMemory& memory,
                    bool has_host_pages) noexcept;

/// What to reject with.
struct PieceFailure {
  const char* code;
  const char* message;
};

/// Runs `Body`, which returns 0 or an errno to reject with.
template <typename Body>
class PieceTask final : public Task {
 public:
  PieceTask(Instance& instance, const PieceFailure& failure, Body body) noexcept
      : Task(instance), failure_(failure), body_(std::move(body)) {}

 private:
  void Work(kernel::Scratch&) noexcept override { error_ = body_(); }
  napi_value Result(napi_env env) noexcept override {
    return error_ == 0 ? nullptr
                       : MakeSystemError(env, failure_.code, failure_.message, error_);
  }

  const PieceFailure failure_;
  const Body body_;
  int error_ = 0;
};

/// Runs `body` on a thread of the pool, with the object that was called and the arguments pinned,
/// from the second to the fifth, that are arrays.
template <typename Body>
Napi::Value LaunchPiece(const Napi::CallbackInfo& info, const PieceFailure& failure,
                        Body body) noexcept {
  napi_env env = info.Env();
  auto* task =
      new (std::nothrow) PieceTask<Body>(Instance::Of(env), failure, std::move(body));
  if (task == nullptr) {
    ThrowError(env, "ERR_OUT_OF_MEMORY", "Cannot start task: out of memory");
    return info.Env().Undefined();
  }
  bool is_pinned = task->Pin(env, info.This());
  for (std::size_t i = 1; i < info.Length() && i < 5 && is_pinned; i++) {
    is_pinned = !info[i].IsTypedArray() || task->Pin(env, info[i]);
  }
  if (!is_pinned) {
    Task::Drop(env, task);
    return info.Env().Undefined();
  }
  const napi_value promise = Task::Launch(env, task);
  return promise == nullptr ? info.Env().Undefined() : Napi::Value(env, promise);
}

}  // namespace pagelane::binding
