#include "binding/cutter.h"

#include <cstring>
#include <new>
#include <utility>

#include "binding/blocks.h"
#include "binding/results.h"
#include "kernel/limits.h"

namespace pagelane::binding {

namespace {

constexpr std::int64_t kReachMax = std::int64_t{1} << 32;

void ThrowState(napi_env env, const char* message) noexcept {
  ThrowError(env, "ERR_CUTTER_STATE", message);
}

}  // namespace

Napi::Function RamCutter::Define(napi_env env) {
  return DefineClass(env, "RamCutter",
                     {
                         InstanceMethod<&RamCutter::SetBlocks>("setBlocks"),
                         InstanceMethod<&RamCutter::Begin>("begin"),
                         InstanceMethod<&RamCutter::Cut>("cut"),
                         InstanceMethod<&RamCutter::MarkSectionBegin>("markSectionBegin"),
                         InstanceMethod<&RamCutter::MarkSectionEnd>("markSectionEnd"),
                         InstanceMethod<&RamCutter::SetInside>("setInside"),
                         InstanceMethod<&RamCutter::BatchEntries>("batchEntries"),
                         InstanceMethod<&RamCutter::Seal>("seal"),
                         InstanceMethod<&RamCutter::BeginEpoch>("beginEpoch"),
                         InstanceMethod<&RamCutter::TakeHeld>("takeHeld"),
                         InstanceMethod<&RamCutter::SetHolding>("setHolding"),
                         InstanceMethod<&RamCutter::SetReach>("setReach"),
                         InstanceMethod<&RamCutter::HeldPages>("heldPages"),
                         InstanceMethod<&RamCutter::Release>("release"),
                         InstanceMethod<&RamCutter::IsInsideRecord>("isInsideRecord"),
                         InstanceMethod<&RamCutter::LastBlock>("lastBlock"),
                     });
}

RamCutter::RamCutter(const Napi::CallbackInfo& info) : Napi::ObjectWrap<RamCutter>(info) {
  Arguments arguments(info, "make RAM cutter");
  page_bits_ = static_cast<std::uint32_t>(
      arguments.Integer(0, "pageBits", kernel::kPageBitsMin, kernel::kPageBitsMax));
  if (arguments.is_wrong()) {
    return;
  }
  cutter_.reset(new (std::nothrow) kernel::RamCutter(page_bits_));
  if (cutter_ == nullptr || !cutter_->is_usable()) {
    ThrowError(info.Env(), "ERR_OUT_OF_MEMORY", "Cannot make RAM cutter: out of memory");
  }
}

Napi::Value RamCutter::SetBlocks(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "set blocks");
  auto blocks = ReadBlocks(arguments, page_bits_);
  if (blocks == nullptr) {
    return info.Env().Undefined();
  }
  // Entries name blocks by index, so the batch belongs to the table it was begun with.
  if (cutter_->BatchEntries() > 0) {
    ThrowState(info.Env(), "Cannot set blocks: the batch must be sealed first");
  } else if (!cutter_->SetBlocks(std::move(blocks))) {
    ThrowError(info.Env(), "ERR_OUT_OF_MEMORY", "Cannot set blocks: out of memory for bitmaps");
  }
  return info.Env().Undefined();
}

Napi::Value RamCutter::Begin(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "begin batch");
  const std::span<std::uint8_t> slot = arguments.LastingBytes(0, "slot");
  if (!arguments.is_wrong() && slot.size() < cutter_->SlotBytesMin()) {
    arguments.WrongRange("\"slot\" must have at least %zu bytes: has %zu",
                         cutter_->SlotBytesMin(), slot.size());
  }
  if (arguments.is_wrong()) {
    return info.Env().Undefined();
  }
  if (cutter_->BatchEntries() > 0) {
    ThrowState(info.Env(), "Cannot begin batch: the last one must be sealed first");
    return info.Env().Undefined();
  }
  slot_ = Napi::Reference<Napi::Value>::New(info[0], 1);
  slot_bytes_ = slot.size();
  cutter_->Begin(slot.data(), slot.size());
  return info.Env().Undefined();
}

/// Whether there is a slot, and it is still the memory that was given. Throws if not.
bool RamCutter::HasSlot(napi_env env) noexcept {
  if (!cutter_->has_slot()) {
    ThrowState(env, "Cannot use batch: a slot must be given to begin() first");
    return false;
  }
  void* data = nullptr;
  std::size_t byte_count = 0;
  if (!LookAtArray(env, slot_.Value(), napi_uint8_array, &data, &byte_count) ||
      data != cutter_->slot() || byte_count != slot_bytes_) {
    ThrowState(env, "Cannot use batch: its slot was detached");
    return false;
  }
  return true;
}

Napi::Value RamCutter::Cut(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "cut chunk");
  const std::span<std::uint8_t> chunk = arguments.Bytes(0, "chunk");
  const auto chunk_bytes = static_cast<std::int64_t>(chunk.size());
  const std::int64_t to = arguments.Integer(2, "to", 0, chunk_bytes);
  const std::int64_t from = arguments.Integer(1, "from", 0, to);
  if (arguments.is_wrong() || !HasSlot(info.Env())) {
    return info.Env().Undefined();
  }
  const kernel::CutResult result = cutter_->Cut(
      chunk.subspan(static_cast<std::size_t>(from), static_cast<std::size_t>(to - from)));
  return Napi::Number::New(info.Env(), static_cast<double>(result.used_bytes) * 8 +
                                           static_cast<double>(result.stop));
}

Napi::Value RamCutter::Mark(const Napi::CallbackInfo& info, bool is_begin) {
  if (!HasSlot(info.Env())) {
    return info.Env().Undefined();
  }
  if (cutter_->is_inside_section() == is_begin) {
    ThrowState(info.Env(), is_begin ? "Cannot mark section: one is open already"
                                    : "Cannot mark section: none is open");
    return info.Env().Undefined();
  }
  return Napi::Boolean::New(
      info.Env(), is_begin ? cutter_->MarkSectionBegin() : cutter_->MarkSectionEnd());
}

Napi::Value RamCutter::MarkSectionBegin(const Napi::CallbackInfo& info) {
  return Mark(info, true);
}

Napi::Value RamCutter::MarkSectionEnd(const Napi::CallbackInfo& info) {
  return Mark(info, false);
}

Napi::Value RamCutter::SetInside(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "set state");
  const bool is_inside = arguments.Boolean(0, "isInside");
  if (!arguments.is_wrong()) {
    if (cutter_->BatchEntries() > 0) {
      ThrowState(info.Env(), "Cannot set state: the batch must be sealed first");
    } else {
      cutter_->SetInside(is_inside);
    }
  }
  return info.Env().Undefined();
}

Napi::Value RamCutter::BatchEntries(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(cutter_->BatchEntries()));
}

Napi::Value RamCutter::Seal(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "seal batch");
  const std::span<std::int32_t> sealed = arguments.Int32s(0, "sealed", kSealedCount);
  if (!arguments.is_wrong() && HasSlot(info.Env())) {
    WriteSealed(cutter_->Seal(), sealed);
    slot_.Reset();
  }
  return info.Env().Undefined();
}

Napi::Value RamCutter::BeginEpoch(const Napi::CallbackInfo& info) {
  // Pages of one batch are one epoch: the decoder's side relies on it.
  if (cutter_->BatchEntries() > 0) {
    ThrowState(info.Env(), "Cannot begin epoch: the batch must be sealed first");
  } else {
    cutter_->BeginEpoch();
  }
  return info.Env().Undefined();
}

Napi::Value RamCutter::TakeHeld(const Napi::CallbackInfo& info) {
  const std::span<const std::uint8_t> held = cutter_->held();
  void* data = nullptr;
  napi_value buffer = nullptr;
  napi_value array = nullptr;
  if (napi_create_arraybuffer(info.Env(), held.size(), &data, &buffer) != napi_ok ||
      napi_create_typedarray(info.Env(), napi_uint8_array, held.size(), buffer, 0, &array) !=
          napi_ok) {
    ThrowError(info.Env(), "ERR_OUT_OF_MEMORY", "Cannot take held bytes: out of memory");
    return info.Env().Undefined();
  }
  if (!held.empty()) {
    std::memcpy(data, held.data(), held.size());
  }
  cutter_->ForgetHeld();
  return Napi::Value(info.Env(), array);
}

Napi::Value RamCutter::SetHolding(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "set state");
  const bool may_hold = arguments.Boolean(0, "mayHold");
  if (!arguments.is_wrong()) {
    cutter_->SetHolding(may_hold);
  }
  return info.Env().Undefined();
}

Napi::Value RamCutter::SetReach(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "set reach");
  const std::int64_t pages = arguments.Integer(0, "pages", 0, kReachMax);
  const std::int64_t span = arguments.Integer(1, "span", 1, kReachMax);
  if (!arguments.is_wrong()) {
    cutter_->SetReach(static_cast<std::uint64_t>(pages), static_cast<std::uint64_t>(span));
  }
  return info.Env().Undefined();
}

Napi::Value RamCutter::HeldPages(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(cutter_->held_page_count()));
}

Napi::Value RamCutter::Release(const Napi::CallbackInfo& info) {
  if (!HasSlot(info.Env())) {
    return info.Env().Undefined();
  }
  return Napi::Number::New(info.Env(), static_cast<double>(cutter_->Release()));
}

Napi::Value RamCutter::IsInsideRecord(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), !cutter_->held().empty());
}

Napi::Value RamCutter::LastBlock(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), cutter_->last_block());
}

}  // namespace pagelane::binding
