#pragma once

#include <pthread.h>

#include <array>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>

#include "kernel/batch.h"
#include "kernel/placement.h"

namespace pagelane::kernel {

inline constexpr std::size_t kThreadsMax = 256;

/// Work for a thread of the pool. The pool does not own it, and does not touch it after `Run`.
class Job {
 public:
  virtual ~Job() = default;
  virtual void Run(Scratch& scratch) noexcept = 0;

 private:
  friend class ThreadPool;
  Job* next_ = nullptr;
};

/// Threads that run jobs in the order they came.
///
/// The queue is linked through the jobs, so nothing is allocated for it; it is as long as the
/// caller lets it be. Threads start with the first job, or when the count is set.
class ThreadPool {
 public:
  ThreadPool() noexcept;
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  /// Sets the number of threads, 1..kThreadsMax, and where they run. More start at once; fewer
  /// remain as soon as those too many are idle. Threads of another placement are replaced: this
  /// waits until each has done the job it is at.
  ///
  /// Promise: a placement that the system refuses changes nothing. If a thread could not be
  ///          started there are fewer, and the next job or call tries again.
  Refusal Set(std::size_t count, const Placement& placement) noexcept;

  /// Queues `job`. False if there is no thread to run it and none could be started.
  bool Submit(Job* job) noexcept;

  /// Ends all threads, after the job that each is at. No job may be submitted after.
  void Stop() noexcept;
  /// Takes the next job that no thread has begun, null if there is none.
  Job* TakeQueued() noexcept;

 private:
  enum class State : std::uint8_t { kNone, kRunning, kExited };
  struct Thread {
    ThreadPool* pool = nullptr;
    std::size_t index = 0;
    State state = State::kNone;
    pthread_t id{};
  };

  static void* Enter(void* thread) noexcept;
  void Work(Thread& thread) noexcept;
  /// Return 0 or errno.
  int Start(Thread& thread) noexcept;
  int StartAll() noexcept;
  bool HasRunning() const noexcept;
  Job* Pop() noexcept;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::array<Thread, kThreadsMax> threads_;
  std::size_t count_;
  /// Changes only while there is no thread.
  Placement placement_;
  bool is_stopping_ = false;
  Job* first_ = nullptr;
  Job* last_ = nullptr;
};

}  // namespace pagelane::kernel
