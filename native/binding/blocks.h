#pragma once

#include <napi.h>

#include <cstdint>
#include <memory>

#include "binding/arguments.h"
#include "kernel/batch.h"
#include "kernel/block_table.h"

namespace pagelane::binding {

/// Reads (names, usedBytes) from the first two arguments. Null if one is wrong.
std::unique_ptr<kernel::BlockTable> ReadBlocks(Arguments& arguments, std::uint32_t page_bits);

/// `BlockTable` of src/native.ts. A task keeps the blocks as they were when it was launched.
class BlockTable : public Napi::ObjectWrap<BlockTable> {
 public:
  static Napi::Function Define(napi_env env);

  /// The table that `value` is; null, and nothing thrown, if it is none.
  static BlockTable* From(napi_env env, napi_value value) noexcept;

  explicit BlockTable(const Napi::CallbackInfo& info);

  const std::shared_ptr<const kernel::BlockTable>& blocks() const noexcept { return blocks_; }
  const std::shared_ptr<kernel::PageStore>& store() const noexcept { return store_; }
  const std::shared_ptr<kernel::PageHashes>& hashes() const noexcept { return hashes_; }
  /// All of it, as the decoder takes it.
  kernel::Target target() const noexcept {
    return {blocks_.get(), store_.get(), has_footer_, section_id_, hashes_.get()};
  }

 private:
  Napi::Value SetBlocks(const Napi::CallbackInfo& info);
  Napi::Value SetStore(const Napi::CallbackInfo& info);
  Napi::Value SetHashes(const Napi::CallbackInfo& info);

  std::shared_ptr<const kernel::BlockTable> blocks_;
  std::shared_ptr<kernel::PageStore> store_;
  std::shared_ptr<kernel::PageHashes> hashes_;
  std::uint32_t page_bits_ = 0;
  bool has_footer_ = false;
  std::uint32_t section_id_ = 0;
};

}  // namespace pagelane::binding
