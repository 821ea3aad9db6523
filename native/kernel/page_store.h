#pragma once

#include <cstddef>
#include <cstdint>

namespace pagelane::kernel {

/// Pages that both ends have: slots of one page each, all zero at first.
///
/// The source alone decides what each slot holds: its batches say which of their pages are kept,
/// and where. So both ends hold the same without a question. Memory is reserved for all slots, and
/// taken as they are used.
///
/// Nothing here is guarded. The ends' rules see to it that a slot is not written while it is read:
/// docs/protocol.md, section 7.2.
class PageStore {
 public:
  PageStore(std::uint32_t page_bits, std::uint32_t slot_count) noexcept;
  ~PageStore();
  PageStore(const PageStore&) = delete;
  PageStore& operator=(const PageStore&) = delete;

  /// False if there was no memory; then there are no slots.
  bool is_usable() const noexcept { return pages_ != nullptr; }
  std::uint32_t slot_count() const noexcept { return slot_count_; }
  std::size_t page_bytes() const noexcept { return std::size_t{1} << page_bits_; }

  const std::uint8_t* At(std::uint32_t slot) const noexcept {
    return pages_ + (std::size_t{slot} << page_bits_);
  }
  std::uint8_t* At(std::uint32_t slot) noexcept {
    return pages_ + (std::size_t{slot} << page_bits_);
  }

 private:
  std::uint32_t page_bits_;
  std::uint32_t slot_count_ = 0;
  std::size_t mapped_bytes_ = 0;
  std::uint8_t* pages_ = nullptr;
};

}  // namespace pagelane::kernel
