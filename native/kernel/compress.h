#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace pagelane::kernel {

/// How the literals of a batch are compressed. Values are on the wire: never renumber.
enum class Codec : std::uint8_t { kNone = 0, kLz4 = 1, kZstd = 2 };

/// Levels that `Compressor::Compress` takes.
struct LevelRange {
  int min;
  int max;
};
LevelRange LevelsOf(Codec codec) noexcept;

/// How a decompression ended.
enum class Decompressed : std::uint8_t { kExact, kMalformed, kNoMemory };

/// The codecs' working memory. One per thread; made at first use and then reused.
class Compressor {
 public:
  Compressor() noexcept = default;
  ~Compressor();
  Compressor(const Compressor&) = delete;
  Compressor& operator=(const Compressor&) = delete;

  /// Compresses `source` as a whole.
  ///
  /// level:   LZ4: acceleration 1..65537; zstd: -131072..22.
  /// prefix:  what the decoder will have in front of it, at most kPrefixBytesMax (zstd only).
  /// Returns: bytes written to `target`, 0 if they would be more than it holds or if there is no
  ///          memory: the caller then keeps what it has.
  std::size_t Compress(Codec codec, int level, std::span<const std::uint8_t> source,
                       std::span<const std::uint8_t> prefix,
                       std::span<std::uint8_t> target) noexcept;

  /// Decompresses `source`, all of it, into exactly `target`.
  ///
  /// Promise: whatever `source` holds, nothing outside `target` is written, and the work is
  ///          bounded by the two sizes. zstd input must be one frame that states its content size
  ///          and whose window is no larger than kWindowBytesMax.
  Decompressed Decompress(Codec codec, std::span<const std::uint8_t> source,
                          std::span<const std::uint8_t> prefix,
                          std::span<std::uint8_t> target) noexcept;

 private:
  std::size_t CompressZstd(int level, std::span<const std::uint8_t> source,
                           std::span<const std::uint8_t> prefix,
                           std::span<std::uint8_t> target) noexcept;
  Decompressed DecompressZstd(std::span<const std::uint8_t> source,
                              std::span<const std::uint8_t> prefix,
                              std::span<std::uint8_t> target) noexcept;

  // The libraries' own types, kept out of this header.
  void* zstd_encoder_ = nullptr;
  void* zstd_decoder_ = nullptr;
};

/// Versions of the libraries linked in.
const char* Lz4Version() noexcept;
const char* ZstdVersion() noexcept;

}  // namespace pagelane::kernel
