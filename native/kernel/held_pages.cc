#include "kernel/held_pages.h"

#include <cassert>
#include <cstring>
#include <new>

namespace pagelane::kernel {

namespace {

/* Chosen by us */
/// Bytes of pages that are held at most: they are sent while the guest stands still.
constexpr std::size_t kHeldBytesMax = 1024 * 1024;

}  // namespace

bool HeldPages::Reset(const BlockTable& blocks) {
  count_ = 0;
  return sent_.Reset(blocks);
}

bool HeldPages::Hold(std::uint16_t block, std::uint64_t page,
                     const std::uint8_t* bytes) noexcept {
  const std::size_t room = kHeldBytesMax >> page_bits_;
  if (count_ == room) {
    return false;
  }
  if (bytes_ == nullptr) {
    places_.reset(new (std::nothrow) Place[room]);
    bytes_.reset(new (std::nothrow) std::uint8_t[kHeldBytesMax]);
    if (places_ == nullptr || bytes_ == nullptr) {
      places_.reset();
      bytes_.reset();
      return false;
    }
  }
  places_[count_] = {page, block};
  std::memcpy(BytesOf(count_), bytes, std::size_t{1} << page_bits_);
  count_++;
  sent_.At(block, page) |= kHeld;
  return true;
}

void HeldPages::Replace(std::uint16_t block, std::uint64_t page,
                        const std::uint8_t* bytes) noexcept {
  std::memcpy(BytesOf(IndexOf(block, page)), bytes, std::size_t{1} << page_bits_);
}

void HeldPages::Drop(std::uint16_t block, std::uint64_t page) noexcept {
  const std::size_t index = IndexOf(block, page);
  const std::size_t last = count_ - 1;
  if (index != last) {
    places_[index] = places_[last];
    std::memcpy(BytesOf(index), BytesOf(last), std::size_t{1} << page_bits_);
  }
  count_--;
  sent_.At(block, page) &= ~kHeld;
}

HeldPages::Held HeldPages::Last() const noexcept {
  assert(count_ > 0);
  return {places_[count_ - 1].block, places_[count_ - 1].page, BytesOf(count_ - 1)};
}

void HeldPages::DropLast() noexcept {
  const Held last = Last();
  Drop(last.block, last.page);
}

std::size_t HeldPages::IndexOf(std::uint16_t block, std::uint64_t page) const noexcept {
  std::size_t index = 0;
  while (places_[index].page != page || places_[index].block != block) {
    index++;
    assert(index < count_);
  }
  return index;
}

}  // namespace pagelane::kernel
