#pragma once

#include <napi.h>

#include <array>
#include <cstddef>
#include <mutex>

#include "binding/arguments.h"
#include "kernel/thread_pool.h"

namespace pagelane::binding {

class Task;

/// What the addon holds per environment (the main thread, and every worker that loads it).
///
/// Finished tasks wait in a list here; the thread-safe function only wakes the script thread. When
/// the environment ends, the threads are joined first, and then what is queued or finished is let
/// go of: so no thread outlives the arrays it works on.
class Instance {
 public:
  /// Makes the instance of `env`. False if an exception is on its way.
  static bool Start(napi_env env) noexcept;
  static Instance& Of(napi_env env) noexcept;

  kernel::ThreadPool& threads() noexcept { return threads_; }

  /// Queues `task` and keeps the event loop alive until it has settled. False if no thread can
  /// run it; the task is then still the caller's.
  bool Launch(Task* task) noexcept;

  /// Says that a task has run. On any thread; the task is not the caller's any more.
  void Finish(Task* task) noexcept;

 private:
  Instance() noexcept = default;
  static void Settle(napi_env env, napi_value callback, void* context, void* data) noexcept;
  static void End(void* instance) noexcept;
  Task* TakeFinished() noexcept;

  napi_env env_ = nullptr;
  napi_threadsafe_function wake_ = nullptr;
  std::size_t outstanding_ = 0;  // script thread only
  kernel::ThreadPool threads_;
  std::mutex mutex_;
  Task* finished_ = nullptr;
};

/// Work on a thread of the pool that settles a promise.
///
///   1. pin      the arrays, and copy the scalars      (script thread)
///   2. work     in the kernel                         (a thread of the pool)
///   3. settle   the promise, and unpin                (script thread)
class Task : public kernel::Job {
 public:
  explicit Task(Instance& instance) noexcept : instance_(instance) {}

  /// Keeps `value` until the task is let go of. False if an exception is on its way.
  bool Pin(napi_env env, napi_value value) noexcept;

  /// Lets go of a task that is not with the pool, and of what it pinned.
  static void Drop(napi_env env, Task* task) noexcept;

  /// Launches the task and returns its promise; null, with an exception on its way and the task
  /// dropped, if that cannot be done.
  static napi_value Launch(napi_env env, Task* task) noexcept;

  void Run(kernel::Scratch& scratch) noexcept final;

 protected:
  static constexpr std::size_t kPinsMax = 6;

  virtual void Work(kernel::Scratch& scratch) noexcept = 0;
  /// Writes the result where the script wants it. Returns null, or the error to reject with.
  virtual napi_value Result(napi_env env) noexcept = 0;
  /// The value that was pinned as number `index`.
  napi_value pinned(napi_env env, std::size_t index) const noexcept;

 private:
  friend class Instance;
  void Settle(napi_env env) noexcept;
  void Unpin(napi_env env) noexcept;

  Instance& instance_;
  napi_deferred deferred_ = nullptr;
  std::array<napi_ref, kPinsMax> pins_{};
  std::size_t pin_count_ = 0;
  Task* next_finished_ = nullptr;
};

/// Pins the arguments with the given indexes, and launches; `task` is null if there was no memory.
template <std::size_t kCount>
Napi::Value PinAndLaunch(const Napi::CallbackInfo& info, Task* task,
                         const std::size_t (&indexes)[kCount]) noexcept {
  napi_env env = info.Env();
  if (task == nullptr) {
    ThrowError(env, "ERR_OUT_OF_MEMORY", "Cannot start task: out of memory");
    return info.Env().Undefined();
  }
  for (const std::size_t index : indexes) {
    if (!task->Pin(env, info[index])) {
      Task::Drop(env, task);
      return info.Env().Undefined();
    }
  }
  const napi_value promise = Task::Launch(env, task);
  return promise == nullptr ? info.Env().Undefined() : Napi::Value(env, promise);
}

}  // namespace pagelane::binding
