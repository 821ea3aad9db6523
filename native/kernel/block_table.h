#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <unordered_map>

namespace pagelane::kernel {

/// A RAM block as a stream names it.
struct Block {
  std::string name;          // 1..255 bytes
  std::uint64_t page_count;  // pages in use, the last one perhaps in part
};

/// Why a list of blocks is refused.
enum class BlocksFault : std::uint8_t { kNone, kCount, kNameBytes, kNameTwice, kUsedBytes };

/// RAM blocks by index and by name.
class BlockTable {
 public:
  explicit BlockTable(std::uint32_t page_bits) : page_bits_(page_bits) {}
  BlockTable(const BlockTable&) = delete;
  BlockTable& operator=(const BlockTable&) = delete;

  /// Adds the next block; its index is how many there were.
  BlocksFault Add(std::string_view name, std::uint64_t used_bytes);

  std::uint32_t page_bits() const noexcept { return page_bits_; }
  std::uint64_t page_bytes() const noexcept { return std::uint64_t{1} << page_bits_; }
  std::size_t count() const noexcept { return blocks_.size(); }
  const Block& at(std::size_t index) const noexcept { return blocks_[index]; }

  /// Index of the block named `name`, -1 if there is none. Allocates nothing.
  std::int32_t Find(std::string_view name) const noexcept;

 private:
  std::uint32_t page_bits_;
  std::deque<Block> blocks_;  // never moves a name, so that the views below stay good
  std::unordered_map<std::string_view, std::int32_t> index_of_;
};

}  // namespace pagelane::kernel
