#include "binding/memory_view.h"

#include <sys/mman.h>

#include <memory>
#include <utility>

#include "binding/arguments.h"
#include "kernel/mapping_guard.h"

namespace pagelane::binding {

namespace {

/// What a view's buffer keeps until the engine lets go of it.
class ViewedBytes {
 public:
  /// Null if the system refuses a mapping.
  static std::unique_ptr<ViewedBytes> Make(const std::shared_ptr<kernel::GuestMemory>& memory,
                                           std::size_t index) {
    const kernel::MemoryBlock& block = memory->block(index);
    if (block.is_writable) {
      return std::unique_ptr<ViewedBytes>(new ViewedBytes(memory, block.bytes));
    }
    void* bytes = mmap(nullptr, block.byte_count, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_NORESERVE, block.file,
                       static_cast<off_t>(block.file_offset));
    if (bytes == MAP_FAILED) {
      return nullptr;
    }
    const kernel::FileMapping mapping{static_cast<std::uint8_t*>(bytes), block.byte_count,
                                      block.host_page_bytes, block.file, block.file_offset};
    std::unique_ptr<ViewedBytes> viewed(new ViewedBytes(memory, mapping.bytes));
    viewed->own_byte_count_ = block.byte_count;
    viewed->guard_ = std::make_unique<kernel::MappingGuard>(mapping, memory->loss());
    return viewed;
  }

  ~ViewedBytes() {
    guard_.reset();
    if (own_byte_count_ != 0) {
      munmap(bytes_, own_byte_count_);
    }
  }

  std::uint8_t* bytes() const noexcept { return bytes_; }

 private:
  ViewedBytes(std::shared_ptr<kernel::GuestMemory> memory, std::uint8_t* bytes) noexcept
      : memory_(std::move(memory)), bytes_(bytes) {}

  const std::shared_ptr<kernel::GuestMemory> memory_;
  std::uint8_t* const bytes_;
  std::uint64_t own_byte_count_ = 0;  // of a mapping that is this view's alone
  std::unique_ptr<kernel::MappingGuard> guard_;
};

}  // namespace

napi_value MakeMemoryView(napi_env env, const std::shared_ptr<kernel::GuestMemory>& memory,
                          std::size_t block) {
  std::unique_ptr<ViewedBytes> viewed = ViewedBytes::Make(memory, block);
  if (viewed == nullptr) {
    ThrowError(env, "ERR_MEMORY_MAP", "Cannot view memory: the system refuses to map it");
    return nullptr;
  }
  const auto release = [](napi_env, void*, void* kept) { delete static_cast<ViewedBytes*>(kept); };
  const std::size_t byte_count = memory->block(block).byte_count;
  napi_value buffer = nullptr;
  napi_value view = nullptr;
  const napi_status status = napi_create_external_arraybuffer(env, viewed->bytes(), byte_count,
                                                              release, viewed.get(), &buffer);
  if (status != napi_ok) {
    bool is_pending = false;
    napi_is_exception_pending(env, &is_pending);
    if (!is_pending) {
      ThrowError(env, "ERR_MEMORY_MAP", "Cannot view memory: the engine refuses a buffer over it");
    }
    return nullptr;
  }
  static_cast<void>(viewed.release());
  return napi_create_typedarray(env, napi_uint8_array, byte_count, buffer, 0, &view) == napi_ok
             ? view
             : nullptr;
}

void DetachView(napi_env env, napi_value view) noexcept {
  napi_value buffer = nullptr;
  if (napi_get_typedarray_info(env, view, nullptr, nullptr, nullptr, &buffer, nullptr) ==
      napi_ok) {
    napi_detach_arraybuffer(env, buffer);
  }
}

}  // namespace pagelane::binding
