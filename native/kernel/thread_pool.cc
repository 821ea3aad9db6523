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

bool ThreadPool::SetCount(std::size_t count) noexcept {
  assert(count >= 1 && count <= kThreadsMax);
  const std::lock_guard lock(mutex_);
  count_ = count;
  changed_.notify_all();
  return StartAll();
}

bool ThreadPool::Submit(Job* job) noexcept {
  const std::lock_guard lock(mutex_);
  assert(!is_stopping_);
  if (!StartAll() && !HasRunning()) {
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

bool ThreadPool::StartAll() noexcept {
  for (std::size_t i = 0; i < count_ && !is_stopping_; i++) {
    if (threads_[i].state != State::kRunning && !Start(threads_[i])) {
      return false;
    }
  }
  return true;
}

bool ThreadPool::Start(Thread& thread) noexcept {
  if (thread.state == State::kExited) {
    // It has left the lock that is held here, and is on its last instructions.
    pthread_join(thread.id, nullptr);
    thread.id = pthread_t{};
    thread.state = State::kNone;
  }
  // Signals are for the threads that know what to do with them.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  const bool is_started = pthread_create(&thread.id, nullptr, Enter, &thread) == 0;
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (!is_started) {
    thread.id = pthread_t{};
    return false;
  }
  char name[16];
  std::snprintf(name, sizeof name, "pagelane-%zu", thread.index);
  pthread_setname_np(thread.id, name);
  thread.state = State::kRunning;
  return true;
}

void* ThreadPool::Enter(void* thread) noexcept {
  auto& entered = *static_cast<Thread*>(thread);
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
