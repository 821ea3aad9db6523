#include "binding/stores.h"

#include "binding/arguments.h"
#include "binding/blocks.h"
#include "binding/tags.h"
#include "kernel/limits.h"

namespace pagelane::binding {

namespace {

/// Mark objects made by the constructors, so that no other object is taken for one.
constexpr napi_type_tag kPageStoreTag = {0x2c86a1f95be04d37, 0x8d1f6a3b97c2e05a};
constexpr napi_type_tag kStoreIndexTag = {0x71d3e8b40fa9256c, 0xb6092d5ec4f7183e};

std::uint32_t ReadPageBits(Arguments& arguments, std::size_t index) noexcept {
  return static_cast<std::uint32_t>(
      arguments.Integer(index, "pageBits", kernel::kPageBitsMin, kernel::kPageBitsMax));
}

std::uint32_t ReadSlotCount(Arguments& arguments, std::size_t index) noexcept {
  return static_cast<std::uint32_t>(arguments.Integer(
      index, "slotCount", 1, static_cast<std::int64_t>(kernel::kStoreSlotsMax)));
}

void ThrowNoMemory(napi_env env) noexcept {
  ThrowError(env, "ERR_OUT_OF_MEMORY", "Cannot make page store: out of memory");
}

void Mark(const Napi::CallbackInfo& info, const napi_type_tag& tag) noexcept {
  if (napi_type_tag_object(info.Env(), info.This(), &tag) != napi_ok) {
    ThrowError(info.Env(), nullptr, "Cannot make page store: object cannot be marked");
  }
}

}  // namespace

Napi::Function PageStore::Define(napi_env env) {
  return DefineClass(env, "PageStore", {});
}

PageStore* PageStore::From(napi_env env, napi_value value) noexcept {
  return Untag<PageStore>(env, value, kPageStoreTag);
}

PageStore::PageStore(const Napi::CallbackInfo& info) : Napi::ObjectWrap<PageStore>(info) {
  Arguments arguments(info, "make page store");
  const std::uint32_t page_bits = ReadPageBits(arguments, 0);
  const std::uint32_t slot_count = ReadSlotCount(arguments, 1);
  if (arguments.is_wrong()) {
    return;
  }
  store_ = std::make_shared<kernel::PageStore>(page_bits, slot_count);
  if (!store_->is_usable()) {
    ThrowNoMemory(info.Env());
    return;
  }
  Mark(info, kPageStoreTag);
}

Napi::Function StoreIndex::Define(napi_env env) {
  return DefineClass(env, "StoreIndex", {});
}

StoreIndex* StoreIndex::From(napi_env env, napi_value value) noexcept {
  return Untag<StoreIndex>(env, value, kStoreIndexTag);
}

StoreIndex::StoreIndex(const Napi::CallbackInfo& info) : Napi::ObjectWrap<StoreIndex>(info) {
  Arguments arguments(info, "make page store");
  // Names and sizes of the blocks come first, as everywhere.
  const std::uint32_t page_bits = ReadPageBits(arguments, 2);
  const std::uint32_t slot_count = ReadSlotCount(arguments, 3);
  if (arguments.is_wrong()) {
    return;
  }
  const auto blocks = ReadBlocks(arguments, page_bits);
  if (blocks == nullptr) {
    return;
  }
  index_ = std::make_shared<kernel::StoreIndex>(*blocks, slot_count);
  if (!index_->is_usable()) {
    ThrowNoMemory(info.Env());
    return;
  }
  Mark(info, kStoreIndexTag);
}

}  // namespace pagelane::binding
