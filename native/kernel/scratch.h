#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

#include "kernel/batch_builder.h"
#include "kernel/batch_format.h"
#include "kernel/compress.h"
#include "kernel/limits.h"
#include "kernel/store_index.h"

namespace pagelane::kernel {

/// Most pages that are not zero pages in a batch, with the smallest pages there are.
inline constexpr std::size_t kBodyPagesMax = kBodyBytesMax >> kPageBitsMin;
inline constexpr std::size_t kMapEntriesMax = kMapBytesMax / kMapEntryBytes;

/// What an encoder thread works with.
struct EncodeRoom {
  MapEntry entries[kMapEntriesMax];
  MapEntry prefix[kPrefixEntriesMax];
  std::uint32_t references[2 * kBodyPagesMax];
  PageQuery queries[kBodyPagesMax];
  PageFeatures features[kBodyPagesMax];
  std::uint32_t similar[kPrefixBytesMax >> kPageBitsMin];
  std::uint8_t delta[std::size_t{1} << kPageBitsMax];
};

/// A run of decoded pages that is to be kept, each behind a record's header.
struct KeptRun {
  const std::uint8_t* first;
  std::uint32_t slot;
  std::uint32_t count;
};

/// What a decoder thread works with.
struct DecodeRoom {
  std::uint8_t head[kBatchHeaderBytes + kMapBytesMax];
  std::uint8_t literals[kLiteralBytesMax];
  /// A page that repeats a word, and pages that are made of others.
  std::uint8_t filled[std::size_t{1} << kPageBitsMax];
  std::uint8_t made[kBodyBytesMax];
  KeptRun kept[kBodyPagesMax];
  std::uint64_t hashes[kBodyPagesMax];
};

/// Memory of one thread for encoding and decoding, made at first use and then reused.
class Scratch {
 public:
  Compressor& compressor() noexcept { return compressor_; }
  /// Null if there is no memory, as the others.
  EncodeRoom* Encoding() noexcept { return Make(encoding_); }
  DecodeRoom* Decoding() noexcept { return Make(decoding_); }
  /// Builds batches of pages of this size.
  BatchBuilder* Building(std::uint32_t page_bits) noexcept {
    if (builder_ == nullptr || builder_bits_ != page_bits) {
      builder_.reset(new (std::nothrow) BatchBuilder(page_bits));
      builder_bits_ = page_bits;
    }
    return builder_ != nullptr && builder_->is_usable() ? builder_.get() : nullptr;
  }
  /// kPrefixBytesMax bytes.
  std::uint8_t* Prefix() noexcept {
    Prefixes* prefix = Make(prefix_);
    return prefix == nullptr ? nullptr : prefix->bytes;
  }

 private:
  struct Prefixes {
    std::uint8_t bytes[kPrefixBytesMax];
  };

  template <typename Room>
  static Room* Make(std::unique_ptr<Room>& room) noexcept {
    if (room == nullptr) {
      room.reset(new (std::nothrow) Room);
    }
    return room.get();
  }

  Compressor compressor_;
  std::unique_ptr<EncodeRoom> encoding_;
  std::unique_ptr<DecodeRoom> decoding_;
  std::unique_ptr<Prefixes> prefix_;
  std::unique_ptr<BatchBuilder> builder_;
  std::uint32_t builder_bits_ = 0;
};

}  // namespace pagelane::kernel
