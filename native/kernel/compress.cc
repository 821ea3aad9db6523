#include "kernel/compress.h"

#include <lz4.h>
// The frame header is read before a byte is decoded; that function is for static linking only,
// which is how the library is linked.
#define ZSTD_STATIC_LINKING_ONLY
#include <zstd.h>

#include "kernel/limits.h"

namespace pagelane::kernel {

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

std::size_t Compressor::Compress(Codec codec, int level, const std::uint8_t* source,
                                 std::size_t source_bytes, std::uint8_t* target,
                                 std::size_t target_bytes) noexcept {
  if (source_bytes > kLiteralBytesMax || target_bytes > kLiteralBytesMax) {
    return 0;
  }
  if (codec == Codec::kLz4) {
    const int written = LZ4_compress_fast(
        reinterpret_cast<const char*>(source), reinterpret_cast<char*>(target),
        static_cast<int>(source_bytes), static_cast<int>(target_bytes), level);
    return written > 0 ? static_cast<std::size_t>(written) : 0;
  }
  if (codec == Codec::kZstd) {
    if (zstd_encoder_ == nullptr) {
      zstd_encoder_ = ZSTD_createCCtx();
    }
    if (zstd_encoder_ == nullptr) {
      return 0;
    }
    const std::size_t written = ZSTD_compressCCtx(static_cast<ZSTD_CCtx*>(zstd_encoder_), target,
                                                  target_bytes, source, source_bytes, level);
    return ZSTD_isError(written) != 0 ? 0 : written;
  }
  return 0;
}

Decompressed Compressor::Decompress(Codec codec, const std::uint8_t* source,
                                    std::size_t source_bytes, std::uint8_t* target,
                                    std::size_t target_bytes) noexcept {
  if (source_bytes > kPayloadBytesMax || target_bytes > kLiteralBytesMax) {
    return Decompressed::kMalformed;
  }
  if (codec == Codec::kLz4) {
    const int written = LZ4_decompress_safe(
        reinterpret_cast<const char*>(source), reinterpret_cast<char*>(target),
        static_cast<int>(source_bytes), static_cast<int>(target_bytes));
    return written == static_cast<int>(target_bytes) ? Decompressed::kExact
                                                     : Decompressed::kMalformed;
  }
  if (codec == Codec::kZstd) {
    return DecompressZstd(source, source_bytes, target, target_bytes);
  }
  return Decompressed::kMalformed;
}

Decompressed Compressor::DecompressZstd(const std::uint8_t* source, std::size_t source_bytes,
                                        std::uint8_t* target,
                                        std::size_t target_bytes) noexcept {
  ZSTD_frameHeader header;
  if (ZSTD_getFrameHeader(&header, source, source_bytes) != 0 ||
      header.frameType != ZSTD_frame || header.frameContentSize != target_bytes ||
      header.windowSize > kLiteralBytesMax || header.dictID != 0) {
    return Decompressed::kMalformed;
  }
  // One-shot decompression accepts several frames in a row; a batch has one.
  if (ZSTD_findFrameCompressedSize(source, source_bytes) != source_bytes) {
    return Decompressed::kMalformed;
  }
  if (zstd_decoder_ == nullptr) {
    zstd_decoder_ = ZSTD_createDCtx();
  }
  if (zstd_decoder_ == nullptr) {
    return Decompressed::kNoMemory;
  }
  const std::size_t written = ZSTD_decompressDCtx(static_cast<ZSTD_DCtx*>(zstd_decoder_), target,
                                                  target_bytes, source, source_bytes);
  return written == target_bytes ? Decompressed::kExact : Decompressed::kMalformed;
}

const char* Lz4Version() noexcept {
  return LZ4_versionString();
}

const char* ZstdVersion() noexcept {
  return ZSTD_versionString();
}

}  // namespace pagelane::kernel
