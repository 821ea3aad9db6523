#pragma once

#include <napi.h>

#include <memory>
#include <vector>

#include "binding/arguments.h"
#include "binding/memory_registry.h"
#include "kernel/guest_memory.h"

namespace pagelane::binding {

/// `NativeGuestMemory` of src/native.ts.
///
/// A task keeps the memory's shared pointer, and pins the script's object as well: buffers live as
/// long as that does.
class GuestMemory : public Napi::ObjectWrap<GuestMemory> {
 public:
  static Napi::Function Define(napi_env env);
  /// The memory that `value` is; null, and nothing thrown, if it is none.
  static GuestMemory* From(napi_env env, napi_value value) noexcept;

  explicit GuestMemory(const Napi::CallbackInfo& info);

  /// Null once it was disposed of.
  std::shared_ptr<kernel::GuestMemory> memory() const noexcept {
    return held_ == nullptr ? nullptr : held_->memory;
  }

 private:
  void Open(const Napi::CallbackInfo& info);
  void Attach(const Napi::CallbackInfo& info);
  bool ReadSources(Arguments& arguments, std::size_t count,
                   std::vector<kernel::BlockSource>* sources);
  std::uint8_t* KeepBuffer(Arguments& arguments, std::size_t block, napi_value buffer,
                           std::uint64_t byte_count);
  /// The memory, for a method; null, with an exception on its way, if it was disposed of.
  kernel::GuestMemory* Opened(napi_env env, const char* task) const noexcept;
  std::size_t ReadBlock(Arguments& arguments, std::size_t index) const noexcept;
  /// Block, and words for a bit per page of it. False, with an exception on its way, if wrong.
  bool ReadPopulated(const Napi::CallbackInfo& info, std::size_t* block,
                     std::span<std::uint32_t>* words) const;

  Napi::Value Id(const Napi::CallbackInfo& info);
  Napi::Value IsLost(const Napi::CallbackInfo& info);
  Napi::Value View(const Napi::CallbackInfo& info);
  Napi::Value FindPopulated(const Napi::CallbackInfo& info);
  Napi::Value ScanPopulated(const Napi::CallbackInfo& info);
  Napi::Value Punch(const Napi::CallbackInfo& info);
  Napi::Value Dispose(const Napi::CallbackInfo& info);

  std::shared_ptr<const HeldMemory> held_;
  std::uint64_t id_ = 0;
  std::vector<Napi::Reference<Napi::Value>> buffers_;  // of each block, empty for files
  std::vector<Napi::Reference<Napi::Value>> views_;    // of each block, empty until asked for
};

/// Reads guest memory that is open; null, with an exception on its way, if there is none.
std::shared_ptr<kernel::GuestMemory> ReadMemory(Arguments& arguments, std::size_t index);

/// `createMemoryFile` of src/native.ts.
Napi::Value CreateMemoryFile(const Napi::CallbackInfo& info);

/// Reads a bitmap of a block's pages: 32 pages a word, or as many words as KVM gives, 64 pages at
/// a time. Wrong if it is shorter or longer.
std::span<std::uint32_t> ReadPageBitmap(Arguments& arguments, std::size_t index, const char* name,
                                        std::uint64_t page_count) noexcept;

}  // namespace pagelane::binding
