#include "binding/instance.h"

#include <cassert>
#include <new>

#include "binding/arguments.h"

namespace pagelane::binding {

bool Instance::Start(napi_env env) noexcept {
  auto* instance = new (std::nothrow) Instance();
  if (instance == nullptr) {
    ThrowError(env, "ERR_OUT_OF_MEMORY", "Cannot load addon: out of memory");
    return false;
  }
  instance->env_ = env;
  const auto finalize = [](napi_env, void* data, void*) { delete static_cast<Instance*>(data); };
  if (napi_set_instance_data(env, instance, finalize, nullptr) != napi_ok) {
    delete instance;
    ThrowError(env, nullptr, "Cannot load addon: no instance data");
    return false;
  }
  napi_value name;
  // Hooks run in reverse order: this one must be added after the function has added its own, so
  // that the threads are gone when the function is.
  if (napi_create_string_utf8(env, "pagelane", NAPI_AUTO_LENGTH, &name) != napi_ok ||
      napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, nullptr, nullptr,
                                      instance, Settle, &instance->wake_) != napi_ok ||
      napi_unref_threadsafe_function(env, instance->wake_) != napi_ok ||
      napi_add_env_cleanup_hook(env, End, instance) != napi_ok) {
    ThrowError(env, nullptr, "Cannot load addon: no way to settle promises");
    return false;
  }
  return true;
}

Instance& Instance::Of(napi_env env) noexcept {
  void* data = nullptr;
  napi_get_instance_data(env, &data);
  assert(data != nullptr);
  return *static_cast<Instance*>(data);
}

bool Instance::Launch(Task* task) noexcept {
  if (!threads_.Submit(task)) {
    return false;
  }
  if (outstanding_++ == 0) {
    napi_ref_threadsafe_function(env_, wake_);
  }
  return true;
}

void Instance::Finish(Task* task) noexcept {
  bool is_first = false;
  {
    const std::lock_guard lock(mutex_);
    is_first = finished_ == nullptr;
    task->next_finished_ = finished_;
    finished_ = task;
  }
  // One wake-up settles all that has finished by then.
  if (is_first) {
    napi_call_threadsafe_function(wake_, nullptr, napi_tsfn_nonblocking);
  }
}

/// Takes all finished tasks, in the order they finished.
Task* Instance::TakeFinished() noexcept {
  Task* last_first = nullptr;
  {
    const std::lock_guard lock(mutex_);
    last_first = finished_;
    finished_ = nullptr;
  }
  Task* first = nullptr;
  while (last_first != nullptr) {
    Task* next = last_first->next_finished_;
    last_first->next_finished_ = first;
    first = last_first;
    last_first = next;
  }
  return first;
}

void Instance::Settle(napi_env env, napi_value, void* context, void*) noexcept {
  if (env == nullptr) {
    return;  // the environment has ended, and `End` has let go of all tasks
  }
  auto* instance = static_cast<Instance*>(context);
  Task* task = instance->TakeFinished();
  while (task != nullptr) {
    Task* next = task->next_finished_;
    napi_handle_scope scope = nullptr;
    napi_open_handle_scope(env, &scope);
    task->Settle(env);
    Task::Drop(env, task);
    napi_close_handle_scope(env, scope);
    task = next;
    if (--instance->outstanding_ == 0) {
      napi_unref_threadsafe_function(env, instance->wake_);
    }
  }
}

void Instance::End(void* context) noexcept {
  auto* instance = static_cast<Instance*>(context);
  instance->threads_.Stop();
  // Only tasks are submitted to these threads.
  while (kernel::Job* job = instance->threads_.TakeQueued()) {
    Task::Drop(instance->env_, static_cast<Task*>(job));
  }
  Task* task = instance->TakeFinished();
  while (task != nullptr) {
    Task* next = task->next_finished_;
    Task::Drop(instance->env_, task);
    task = next;
  }
}

bool Task::Pin(napi_env env, napi_value value) noexcept {
  assert(pin_count_ < kPinsMax);
  if (napi_create_reference(env, value, 1, &pins_[pin_count_]) != napi_ok) {
    ThrowError(env, nullptr, "Cannot keep array: no reference");
    return false;
  }
  pin_count_++;
  return true;
}

void Task::Drop(napi_env env, Task* task) noexcept {
  task->Unpin(env);
  delete task;
}

napi_value Task::Launch(napi_env env, Task* task) noexcept {
  napi_value promise = nullptr;
  if (napi_create_promise(env, &task->deferred_, &promise) != napi_ok) {
    ThrowError(env, nullptr, "Cannot start task: no promise");
    Drop(env, task);
    return nullptr;
  }
  if (!task->instance_.Launch(task)) {
    napi_value undefined = nullptr;
    napi_get_undefined(env, &undefined);
    napi_resolve_deferred(env, task->deferred_, undefined);
    ThrowError(env, "ERR_THREAD", "Cannot start task: no thread could be started");
    Drop(env, task);
    return nullptr;
  }
  return promise;
}

void Task::Run(kernel::Scratch& scratch) noexcept {
  Work(scratch);
  instance_.Finish(this);  // which may delete this before it returns
}

napi_value Task::pinned(napi_env env, std::size_t index) const noexcept {
  napi_value value = nullptr;
  napi_get_reference_value(env, pins_[index], &value);
  return value;
}

void Task::Settle(napi_env env) noexcept {
  // The calls fail when the environment is being ended by force; there is nobody left to tell.
  const napi_value error = Result(env);
  if (error == nullptr) {
    napi_value undefined = nullptr;
    napi_get_undefined(env, &undefined);
    napi_resolve_deferred(env, deferred_, undefined);
  } else {
    napi_reject_deferred(env, deferred_, error);
  }
}

void Task::Unpin(napi_env env) noexcept {
  for (std::size_t i = 0; i < pin_count_; i++) {
    napi_delete_reference(env, pins_[i]);
  }
  pin_count_ = 0;
}

}  // namespace pagelane::binding
