#include "kernel/block_table.h"

#include "kernel/limits.h"

namespace pagelane::kernel {

BlocksFault BlockTable::Add(std::string_view name, std::uint64_t used_bytes) {
  if (blocks_.size() >= kBlocksMax) {
    return BlocksFault::kCount;
  }
  if (name.empty() || name.size() > kBlockNameBytesMax) {
    return BlocksFault::kNameBytes;
  }
  if (used_bytes > kBlockBytesMax) {
    return BlocksFault::kUsedBytes;
  }
  if (Find(name) >= 0) {
    return BlocksFault::kNameTwice;
  }
  const std::uint64_t page_count = (used_bytes + page_bytes() - 1) >> page_bits_;
  const Block& added = blocks_.emplace_back(Block{std::string(name), page_count});
  index_of_.emplace(added.name, static_cast<std::int32_t>(blocks_.size() - 1));
  return BlocksFault::kNone;
}

std::int32_t BlockTable::Find(std::string_view name) const noexcept {
  const auto found = index_of_.find(name);
  return found == index_of_.end() ? -1 : found->second;
}

}  // namespace pagelane::kernel
