#include "kernel/thread_pool.h"

#include <signal.h>

#include <algorithm>
#include <cassert>
#include <cstdio>
#include <thread>

namespace pagelane::kernel {

namespace {

/// Threads before anybody sets their number.
constexpr std::size_t kDefaultThreadsMax = 4;

/// Starts a thread that takes no signals but its own faults: others are for threads that know what
/// to do with them, but a fault that is blocked ends the process.
/// Returns 0 or errno.
int StartDeaf(pthread_t* id, void* (*enter)(void*), void* argument) noexcept {
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  for (const int fault : {SIGBUS, SIGSEGV, SIGFPE, SIGILL, SIGTRAP}) {
    sigdelset(&all, fault);
  }
  pthread_sigmask(SIG_SETMASK, &all, &before);
  const int error = pthread_create(id, nullptr, enter, argument);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return error;
}

/// Whether a thread can be placed so, tried with one that does nothing else.
Refusal Try(const Placement& placement) noexcept {
  struct Trial {
    const Placement& placement;
    Refusal refusal;
  };
  Trial trial{placement, {}};
  const auto enter = [](void* argument) -> void* {
    auto& entered = *static_cast<Trial*>(argument);
    entered.refusal = entered.placement.Apply();
    return nullptr;
  };
  pthread_t id;
  if (const int error = StartDeaf(&id, enter, &trial); error != 0) {
    return {ThreadStep::kStart, error};
  }
  pthread_join(id, nullptr);
  return trial.refusal;
}

}  // namespace

ThreadPool::ThreadPool() noexcept
    : count_(std::clamp<std::size_t>(std::thread::hardware_concurrency(), 1,
                                     kDefaultThreadsMax)) {
  for (std::size_t i = 0; i < threads_.size(); i++) {
    threads_[i].pool = this;
    threads_[i].index = i;
  }
}

ThreadPool::~ThreadPool() {
  Stop();
}

Refusal ThreadPool::Set(std::size_t count, const Placement& placement) noexcept {
  assert(count >= 1 && count <= kThreadsMax);
  if (placement != placement_) {
    // Threads are not moved but replaced: to lower a nice value takes a right, to start a thread
    // with the process's own does not.
    const Refusal refusal = Try(placement);
    if (refusal.error != 0) {
      return refusal;
    }
    Stop();
    is_stopping_ = false;
    placement_ = placement;
  }
  const std::lock_guard lock(mutex_);
  count_ = count;
  changed_.notify_all();
  const int error = StartAll();
  return {error == 0 ? ThreadStep::kNone : ThreadStep::kStart, error};
}

bool ThreadPool::Submit(Job* job) noexcept {
  const std::lock_guard lock(mutex_);
  assert(!is_stopping_);
  if (StartAll() != 0 && !HasRunning()) {
    return false;
  }
  job->next_ = nullptr;
  if (last_ != nullptr) {
    last_->next_ = job;
  } else {
    first_ = job;
  }
  last_ = job;
  changed_.notify_one();
  return true;
}

void ThreadPool::Stop() noexcept {
  {
    const std::lock_guard lock(mutex_);
    is_stopping_ = true;
    changed_.notify_all();
  }
  for (Thread& thread : threads_) {
    // Once stopping, no thread is started, so that its state only goes to kExited.
    if (thread.id != pthread_t{}) {
      pthread_join(thread.id, nullptr);
      thread.id = pthread_t{};
    }
    thread.state = State::kNone;
  }
}

Job* ThreadPool::TakeQueued() noexcept {
  const std::lock_guard lock(mutex_);
  return Pop();
}

Job* ThreadPool::Pop() noexcept {
  Job* job = first_;
  if (job != nullptr) {
    first_ = job->next_;
    last_ = first_ == nullptr ? nullptr : last_;
  }
  return job;
}

/// Whether there is a thread that is not about to leave.
bool ThreadPool::HasRunning() const noexcept {
  return std::any_of(threads_.begin(), threads_.begin() + static_cast<std::ptrdiff_t>(count_),
                     [](const Thread& thread) { return thread.state == State::kRunning; });
}

int ThreadPool::StartAll() noexcept {
  for (std::size_t i = 0; i < count_ && !is_stopping_; i++) {
    if (threads_[i].state == State::kRunning) {
      continue;
    }
    if (const int error = Start(threads_[i]); error != 0) {
      return error;
    }
  }
  return 0;
}

int ThreadPool::Start(Thread& thread) noexcept {
  if (thread.state == State::kExited) {
    // It has left the lock that is held here, and is on its last instructions.
    pthread_join(thread.id, nullptr);
    thread.id = pthread_t{};
    thread.state = State::kNone;
  }
  if (const int error = StartDeaf(&thread.id, Enter, &thread); error != 0) {
    thread.id = pthread_t{};
    return error;
  }
  thread.state = State::kRunning;
  return 0;
}

void* ThreadPool::Enter(void* thread) noexcept {
  auto& entered = *static_cast<Thread*>(thread);
  char name[16];
  std::snprintf(name, sizeof name, "pagelane-%zu", entered.index);
  pthread_setname_np(pthread_self(), name);
  // It was tried before. Should a processor have gone since, the thread runs where it may.
  entered.pool->placement_.Apply();
  entered.pool->Work(entered);
  return nullptr;
}

void ThreadPool::Work(Thread& thread) noexcept {
  Scratch scratch;
  std::unique_lock lock(mutex_);
  while (!is_stopping_ && thread.index < count_) {
    Job* job = Pop();
    if (job == nullptr) {
      changed_.wait(lock);
      continue;
    }
    lock.unlock();
    job->Run(scratch);
    lock.lock();
  }
  // The wake-up that ended the wait may have been meant for a job.
  changed_.notify_one();
  thread.state = State::kExited;
}

}  // namespace pagelane::kernel
