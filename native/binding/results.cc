#include "binding/results.h"

#include <cstdio>

#include "kernel/limits.h"

namespace pagelane::binding {

namespace {

const char* CodeOf(kernel::FaultCode code) noexcept {
  switch (code) {
    case kernel::FaultCode::kHeader:
      return "ERR_BATCH_HEADER";
    case kernel::FaultCode::kMap:
      return "ERR_BATCH_MAP";
    case kernel::FaultCode::kPageIndex:
      return "ERR_BATCH_PAGE_INDEX";
    case kernel::FaultCode::kLiterals:
      return "ERR_BATCH_LITERALS";
    case kernel::FaultCode::kCodec:
      return "ERR_BATCH_CODEC";
    case kernel::FaultCode::kChecksum:
      return "ERR_BATCH_CHECKSUM";
    case kernel::FaultCode::kReference:
      return "ERR_BATCH_REFERENCE";
    case kernel::FaultCode::kOutput:
      return "ERR_BATCH_OUTPUT";
    case kernel::FaultCode::kMemoryLost:
      return "ERR_MEMORY_LOST";
    case kernel::FaultCode::kNoMemory:
    case kernel::FaultCode::kNone:
      break;
  }
  return "ERR_OUT_OF_MEMORY";
}

/// Every number of a batch is below its payload's limit times the longest block name.
std::int32_t Narrow(std::uint64_t number) noexcept {
  return static_cast<std::int32_t>(number);
}

/// Offsets of records count from the records' first byte, the script's from the output's.
std::int32_t FromOutput(std::int64_t offset) noexcept {
  return offset < 0 ? -1
                    : static_cast<std::int32_t>(
                          offset + static_cast<std::int64_t>(kernel::kDecodedRoomBytes));
}

}  // namespace

void WriteSealed(const kernel::SealedBatch& sealed, std::span<std::int32_t> target) noexcept {
  target[0] = Narrow(sealed.start);
  target[1] = Narrow(sealed.end);
  target[2] = Narrow(sealed.pages);
  target[3] = Narrow(sealed.zero_pages);
  target[4] = Narrow(sealed.raw_pages);
  target[5] = Narrow(sealed.blank_pages);
  target[6] = Narrow(sealed.foreign_pages);
  target[7] = Narrow(sealed.fill_pages);
  target[8] = Narrow(sealed.literal_bytes);
}

void WriteEncoded(const kernel::EncodedBatch& encoded, std::span<std::int32_t> target) noexcept {
  target[0] = encoded.is_in_out ? 1 : 0;
  target[1] = Narrow(encoded.start);
  target[2] = Narrow(encoded.end);
  target[3] = static_cast<std::int32_t>(encoded.codec);
  target[4] = Narrow(encoded.literal_bytes);
  target[5] = Narrow(encoded.same_pages);
  target[6] = Narrow(encoded.delta_pages);
  target[7] = Narrow(encoded.delta_bytes);
  target[8] = Narrow(encoded.again_pages);
}

void WriteDecoded(const kernel::DecodedBatch& decoded, std::span<std::int32_t> target) noexcept {
  target[0] = Narrow(kernel::kDecodedRoomBytes + decoded.output_bytes);
  target[1] = Narrow(kernel::kDecodedRoomBytes);
  target[2] = Narrow(kernel::kDecodedRoomBytes + decoded.output_bytes);
  target[3] = decoded.opens_inside ? 1 : 0;
  target[4] = decoded.ends_inside ? 1 : 0;
  target[5] = FromOutput(decoded.first_record);
  target[6] = decoded.first_continues ? 1 : 0;
  target[7] = decoded.first_block;
  target[8] = FromOutput(decoded.last_record);
  target[9] = FromOutput(decoded.last_record_end);
  target[10] = decoded.last_block;
  target[11] = decoded.entry_block;
  target[12] = Narrow(decoded.pages);
  target[13] = Narrow(decoded.zero_pages);
  target[14] = Narrow(decoded.fill_pages);
  target[15] = Narrow(decoded.same_pages);
  target[16] = Narrow(decoded.delta_pages);
  target[17] = Narrow(decoded.number);
  target[18] = Narrow(decoded.base);
}

napi_value MakeFaultError(napi_env env, const kernel::Fault& fault, const char* task) noexcept {
  char text[256];
  std::snprintf(text, sizeof text, "Cannot %s: %s %llu: is %llu", task, fault.rule,
                static_cast<unsigned long long>(fault.wanted),
                static_cast<unsigned long long>(fault.seen));
  napi_value code = nullptr;
  napi_value message = nullptr;
  napi_value error = nullptr;
  napi_create_string_utf8(env, CodeOf(fault.code), NAPI_AUTO_LENGTH, &code);
  napi_create_string_utf8(env, text, NAPI_AUTO_LENGTH, &message);
  napi_create_error(env, code, message, &error);
  return error;
}

}  // namespace pagelane::binding
