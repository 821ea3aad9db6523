#include "binding/page_pieces.h"

#include "kernel/limits.h"

namespace pagelane::binding {

PagePiece ReadPiece(Arguments& arguments, const kernel::GuestMemory& memory,
                    bool has_host_pages) noexcept {
  constexpr std::int64_t kPagesMax = kernel::kBlockBytesMax >> kernel::kPageBitsMin;
  PagePiece piece;
  piece.block = static_cast<std::size_t>(arguments.Integer(
      0, "block", 0, static_cast<std::int64_t>(memory.block_count()) - 1));
  piece.first_page =
      static_cast<std::uint64_t>(arguments.Integer(1, "firstPage", 0, kPagesMax));
  piece.page_count =
      static_cast<std::uint64_t>(arguments.Integer(2, "pageCount", 1, kPagesMax));
  if (arguments.is_wrong()) {
    return piece;
  }
  const kernel::MemoryBlock& block = memory.block(piece.block);
  const std::uint64_t page_end = piece.first_page + piece.page_count;
  const auto begins = [&](std::uint64_t page) {
    const std::uint64_t offset = page << memory.page_bits();
    return page % 32 == 0 && (!has_host_pages || offset % block.host_page_bytes == 0);
  };
  arguments.Require(page_end <= memory.PageCount(piece.block), "pages must be of the block");
  arguments.Require(begins(piece.first_page) &&
                        (begins(page_end) || page_end == memory.PageCount(piece.block)),
                    "pages must begin and end with a word, or a host page");
  return piece;
}

}  // namespace pagelane::binding
