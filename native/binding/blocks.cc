#include "binding/blocks.h"

#include <string>
#include <utility>
#include <vector>

#include "binding/hashes.h"
#include "binding/stores.h"
#include "binding/tags.h"
#include "kernel/limits.h"

namespace pagelane::binding {

namespace {

/// Marks objects made by the constructor, so that no other object is taken for one.
constexpr napi_type_tag kTag = {0x5f1cb2a7d3e84c16, 0x9a40e76b2d95f831};

bool ReadName(Arguments& arguments, napi_value names, std::uint32_t index, std::string* name) {
  napi_env env = arguments.env();
  napi_value value;
  std::size_t byte_count = 0;
  // An element may be a getter that throws; its exception is then the one that counts.
  if (napi_get_element(env, names, index, &value) != napi_ok ||
      napi_get_value_string_utf8(env, value, nullptr, 0, &byte_count) != napi_ok) {
    bool is_pending = false;
    if (napi_is_exception_pending(env, &is_pending) == napi_ok && is_pending) {
      return false;
    }
    arguments.WrongType("names", "an array of strings");
    return false;
  }
  if (byte_count < 1 || byte_count > kernel::kBlockNameBytesMax) {
    arguments.WrongRange("names[%u] must be 1 to %llu bytes long: is %zu", index,
                         static_cast<unsigned long long>(kernel::kBlockNameBytesMax), byte_count);
    return false;
  }
  char text[kernel::kBlockNameBytesMax + 1];
  napi_get_value_string_utf8(env, value, text, sizeof text, &byte_count);
  name->assign(text, byte_count);
  return true;
}

bool ReadNames(Arguments& arguments, std::vector<std::string>* names) {
  napi_env env = arguments.env();
  napi_value array = arguments.value(0);
  bool is_array = false;
  std::uint32_t count = 0;
  if (napi_is_array(env, array, &is_array) != napi_ok || !is_array ||
      napi_get_array_length(env, array, &count) != napi_ok) {
    arguments.WrongType("names", "an array of strings");
    return false;
  }
  if (count > kernel::kBlocksMax) {
    arguments.WrongRange("\"names\" must have at most %llu elements: has %u",
                         static_cast<unsigned long long>(kernel::kBlocksMax), count);
    return false;
  }
  names->resize(count);
  for (std::uint32_t i = 0; i < count; i++) {
    if (!ReadName(arguments, array, i, &(*names)[i])) {
      return false;
    }
  }
  return true;
}

}  // namespace

std::unique_ptr<kernel::BlockTable> ReadBlocks(Arguments& arguments, std::uint32_t page_bits) {
  std::vector<std::string> names;
  if (!ReadNames(arguments, &names)) {
    return nullptr;
  }
  // Only now: reading the names may have run script, which may have detached this array.
  const std::span<double> used_bytes = arguments.Doubles(1, "usedBytes");
  if (arguments.is_wrong()) {
    return nullptr;
  }
  if (used_bytes.size() != names.size()) {
    arguments.WrongRange("\"usedBytes\" must have as many elements as \"names\", %zu: has %zu",
                         names.size(), used_bytes.size());
    return nullptr;
  }
  auto blocks = std::make_unique<kernel::BlockTable>(page_bits);
  for (std::size_t i = 0; i < names.size(); i++) {
    const double bytes = used_bytes[i];
    const bool is_within = bytes >= 0 && bytes <= static_cast<double>(kernel::kBlockBytesMax);
    if (!is_within || bytes != static_cast<double>(static_cast<std::uint64_t>(bytes))) {
      arguments.WrongRange("usedBytes[%zu] must be an integer from 0 to 2^52: is %g", i, bytes);
      return nullptr;
    }
    const kernel::BlocksFault fault =
        blocks->Add(names[i], static_cast<std::uint64_t>(bytes));
    if (fault != kernel::BlocksFault::kNone) {
      arguments.WrongRange("names[%zu] must differ from all others: is \"%.64s\"", i,
                           names[i].c_str());
      return nullptr;
    }
  }
  return blocks;
}

Napi::Function BlockTable::Define(napi_env env) {
  return DefineClass(env, "BlockTable", {
                                               InstanceMethod<&BlockTable::SetBlocks>("setBlocks"),
                                               InstanceMethod<&BlockTable::SetStore>("setStore"),
                                               InstanceMethod<&BlockTable::SetHashes>("setHashes"),
                                           });
}

BlockTable* BlockTable::From(napi_env env, napi_value value) noexcept {
  return Untag<BlockTable>(env, value, kTag);
}

BlockTable::BlockTable(const Napi::CallbackInfo& info) : Napi::ObjectWrap<BlockTable>(info) {
  Arguments arguments(info, "make block table");
  page_bits_ = static_cast<std::uint32_t>(
      arguments.Integer(0, "pageBits", kernel::kPageBitsMin, kernel::kPageBitsMax));
  has_footer_ = arguments.Boolean(1, "hasFooter");
  section_id_ = static_cast<std::uint32_t>(arguments.Integer(2, "sectionId", 0, UINT32_MAX));
  if (arguments.is_wrong()) {
    return;
  }
  blocks_ = std::make_shared<const kernel::BlockTable>(page_bits_);
  if (napi_type_tag_object(info.Env(), info.This(), &kTag) != napi_ok) {
    ThrowError(info.Env(), nullptr, "Cannot make block table: object cannot be marked");
  }
}

Napi::Value BlockTable::SetBlocks(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "set blocks");
  if (auto blocks = ReadBlocks(arguments, page_bits_)) {
    blocks_ = std::move(blocks);
  }
  return info.Env().Undefined();
}

Napi::Value BlockTable::SetStore(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "set store");
  const PageStore* store = PageStore::From(info.Env(), info[0]);
  if (store == nullptr) {
    arguments.WrongType("store", "a PageStore");
    return info.Env().Undefined();
  }
  arguments.Require(store->store()->page_bytes() == std::size_t{1} << page_bits_,
                    "\"store\" must have pages of as many bytes");
  if (!arguments.is_wrong()) {
    store_ = store->store();
  }
  return info.Env().Undefined();
}

Napi::Value BlockTable::SetHashes(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "set hashes");
  const PageHashes* hashes = PageHashes::From(info.Env(), info[0]);
  if (hashes == nullptr) {
    arguments.WrongType("hashes", "a PageHashes");
    return info.Env().Undefined();
  }
  arguments.Require(hashes->hashes()->page_bytes() == std::size_t{1} << page_bits_,
                    "\"hashes\" must have pages of as many bytes");
  if (!arguments.is_wrong()) {
    hashes_ = hashes->hashes();
  }
  return info.Env().Undefined();
}

}  // namespace pagelane::binding
