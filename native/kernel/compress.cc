#include "kernel/compress.h"

#include <bit>

#include <lz4.h>
// The frame header is read before a byte is decoded; that function is for static linking only,
// which is how the library is linked.
#define ZSTD_STATIC_LINKING_ONLY
#include <zstd.h>

#include "kernel/limits.h"

namespace pagelane::kernel {

namespace {

/* Chosen by us */
/// Larger than level 1's own: the prefix must still be found when the batch has been read.
constexpr int kPrefixHashLog = 17;
/// Level 1 looks for longer matches in sources of more than 256 KiB; memory has short ones.
constexpr int kShortMatch = 6;

}  // namespace

LevelRange LevelsOf(Codec codec) noexcept {
  switch (codec) {
    case Codec::kLz4:
      return {1, 65537};
    case Codec::kZstd:
      return {-131072, 22};
    case Codec::kNone:
      break;
  }
  return {INT32_MIN, INT32_MAX};
}

Compressor::~Compressor() {
  ZSTD_freeCCtx(static_cast<ZSTD_CCtx*>(zstd_encoder_));
  ZSTD_freeDCtx(static_cast<ZSTD_DCtx*>(zstd_decoder_));
}

std::size_t Compressor::Compress(Codec codec, int level, std::span<const std::uint8_t> source,
                                 std::span<const std::uint8_t> prefix,
                                 std::span<std::uint8_t> target) noexcept {
  if (source.size() > kLiteralBytesMax || target.size() > kLiteralBytesMax) {
    return 0;
  }
  if (codec == Codec::kLz4) {
    const int written = LZ4_compress_fast(
        reinterpret_cast<const char*>(source.data()), reinterpret_cast<char*>(target.data()),
        static_cast<int>(source.size()), static_cast<int>(target.size()), level);
    return written > 0 ? static_cast<std::size_t>(written) : 0;
  }
  return codec == Codec::kZstd ? CompressZstd(level, source, prefix, target) : 0;
}

std::size_t Compressor::CompressZstd(int level, std::span<const std::uint8_t> source,
                                     std::span<const std::uint8_t> prefix,
                                     std::span<std::uint8_t> target) noexcept {
  if (zstd_encoder_ == nullptr) {
    zstd_encoder_ = ZSTD_createCCtx();
  }
  auto* encoder = static_cast<ZSTD_CCtx*>(zstd_encoder_);
  if (encoder == nullptr) {
    return 0;
  }
  if (prefix.empty() && level == 1) {
    ZSTD_CCtx_reset(encoder, ZSTD_reset_session_and_parameters);
    ZSTD_CCtx_setParameter(encoder, ZSTD_c_compressionLevel, level);
    ZSTD_CCtx_setParameter(encoder, ZSTD_c_minMatch, kShortMatch);
    const std::size_t written = ZSTD_compress2(encoder, target.data(), target.size(),
                                               source.data(), source.size());
    return ZSTD_isError(written) != 0 ? 0 : written;
  }
  if (prefix.empty()) {
    const std::size_t written = ZSTD_compressCCtx(encoder, target.data(), target.size(),
                                                  source.data(), source.size(), level);
    return ZSTD_isError(written) != 0 ? 0 : written;
  }
  const auto window = static_cast<int>(std::bit_width(source.size() + prefix.size()));
  ZSTD_CCtx_reset(encoder, ZSTD_reset_session_and_parameters);
  ZSTD_CCtx_setParameter(encoder, ZSTD_c_compressionLevel, level);
  ZSTD_CCtx_setParameter(encoder, ZSTD_c_windowLog, window);
  if (level == 1) {
    ZSTD_CCtx_setParameter(encoder, ZSTD_c_hashLog, kPrefixHashLog);
  }
  ZSTD_CCtx_refPrefix(encoder, prefix.data(), prefix.size());
  const std::size_t written = ZSTD_compress2(encoder, target.data(), target.size(),
                                             source.data(), source.size());
  return ZSTD_isError(written) != 0 ? 0 : written;
}

Decompressed Compressor::Decompress(Codec codec, std::span<const std::uint8_t> source,
                                    std::span<const std::uint8_t> prefix,
                                    std::span<std::uint8_t> target) noexcept {
  if (source.size() > kPayloadBytesMax || target.size() > kLiteralBytesMax) {
    return Decompressed::kMalformed;
  }
  if (codec == Codec::kLz4) {
    const int written = LZ4_decompress_safe(
        reinterpret_cast<const char*>(source.data()), reinterpret_cast<char*>(target.data()),
        static_cast<int>(source.size()), static_cast<int>(target.size()));
    return written == static_cast<int>(target.size()) ? Decompressed::kExact
                                                      : Decompressed::kMalformed;
  }
  return codec == Codec::kZstd ? DecompressZstd(source, prefix, target)
                               : Decompressed::kMalformed;
}

Decompressed Compressor::DecompressZstd(std::span<const std::uint8_t> source,
                                        std::span<const std::uint8_t> prefix,
                                        std::span<std::uint8_t> target) noexcept {
  ZSTD_frameHeader header;
  if (ZSTD_getFrameHeader(&header, source.data(), source.size()) != 0 ||
      header.frameType != ZSTD_frame || header.frameContentSize != target.size() ||
      header.windowSize > kWindowBytesMax || header.dictID != 0) {
    return Decompressed::kMalformed;
  }
  // One-shot decompression accepts several frames in a row; a batch has one.
  if (ZSTD_findFrameCompressedSize(source.data(), source.size()) != source.size()) {
    return Decompressed::kMalformed;
  }
  if (zstd_decoder_ == nullptr) {
    zstd_decoder_ = ZSTD_createDCtx();
  }
  auto* decoder = static_cast<ZSTD_DCtx*>(zstd_decoder_);
  if (decoder == nullptr) {
    return Decompressed::kNoMemory;
  }
  // Also forgets the prefix of a frame that was not read to its end.
  ZSTD_DCtx_reset(decoder, ZSTD_reset_session_only);
  if (ZSTD_isError(ZSTD_DCtx_refPrefix(decoder, prefix.data(), prefix.size())) != 0) {
    return Decompressed::kNoMemory;
  }
  const std::size_t written = ZSTD_decompressDCtx(decoder, target.data(), target.size(),
                                                  source.data(), source.size());
  return written == target.size() ? Decompressed::kExact : Decompressed::kMalformed;
}

const char* Lz4Version() noexcept {
  return LZ4_versionString();
}

const char* ZstdVersion() noexcept {
  return ZSTD_versionString();
}

}  // namespace pagelane::kernel
