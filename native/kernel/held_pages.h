#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "kernel/block_table.h"
#include "kernel/page_map.h"

namespace pagelane::kernel {

/// Pages that keep changing, held back so that only their last version is sent.
///
/// It counts how often each page was sent with contents. One that comes for the third time will
/// most likely come again: it may be held, and every later version takes the place of the one
/// before. The few that are held are released at the end of the last round, or when anything else
/// must follow all pages.
class HeldPages {
 public:
  explicit HeldPages(std::uint32_t page_bits) noexcept : page_bits_(page_bits) {}

  /// Forgets all, and makes room to count the pages of `blocks`. False if there is no memory.
  bool Reset(const BlockTable& blocks);

  std::size_t count() const noexcept { return count_; }

  bool Has(std::size_t block, std::uint64_t page) noexcept {
    return count_ > 0 && (sent_.At(block, page) & kHeld) != 0;
  }

  /// Counts another version of a page that is not held.
  void NoteSent(std::size_t block, std::uint64_t page) noexcept {
    std::uint32_t& sent = sent_.At(block, page);
    sent += sent < kOften ? 1 : 0;
  }

  /// Whether so many versions of a page were sent that there will be more.
  bool ChangesOften(std::size_t block, std::uint64_t page) noexcept {
    return sent_.At(block, page) >= kOften;
  }

  /// Holds a page that is not held. False if there is no room.
  bool Hold(std::uint16_t block, std::uint64_t page, const std::uint8_t* bytes) noexcept;
  /// Takes a later version of a page that is held.
  void Replace(std::uint16_t block, std::uint64_t page, const std::uint8_t* bytes) noexcept;
  /// Lets go of a page that is held.
  void Drop(std::uint16_t block, std::uint64_t page) noexcept;

  /// The page that will be released next; there must be one.
  struct Held {
    std::uint16_t block;
    std::uint64_t page;
    const std::uint8_t* bytes;
  };
  Held Last() const noexcept;
  void DropLast() noexcept;

 private:
  static constexpr std::uint32_t kOften = 2;
  static constexpr std::uint32_t kHeld = std::uint32_t{1} << 31;

  struct Place {
    std::uint64_t page;
    std::uint16_t block;
  };
  std::uint8_t* BytesOf(std::size_t index) const noexcept {
    return bytes_.get() + (index << page_bits_);
  }
  std::size_t IndexOf(std::uint16_t block, std::uint64_t page) const noexcept;

  const std::uint32_t page_bits_;
  PageMap sent_;
  std::size_t count_ = 0;
  std::unique_ptr<Place[]> places_;
  std::unique_ptr<std::uint8_t[]> bytes_;
};

}  // namespace pagelane::kernel
