#include "binding/batches.h"

#include <algorithm>
#include <memory>
#include <new>

#include "binding/arguments.h"
#include "binding/blocks.h"
#include "binding/instance.h"
#include "binding/results.h"
#include "kernel/batch.h"
#include "kernel/limits.h"

namespace pagelane::binding {

namespace {

/// Writes into a pinned array at the end of a task. The script may have detached it meanwhile; it
/// then gets nothing.
template <typename Write>
void WriteLate(napi_env env, napi_value array, std::size_t count, Write write) noexcept {
  void* data = nullptr;
  std::size_t length = 0;
  if (array != nullptr && LookAtArray(env, array, napi_int32_array, &data, &length) &&
      length >= count) {
    write(std::span(static_cast<std::int32_t*>(data), length));
  }
}

bool Overlap(std::span<const std::uint8_t> a, std::span<const std::uint8_t> b) noexcept {
  return !a.empty() && !b.empty() && a.data() < b.data() + b.size() &&
         b.data() < a.data() + a.size();
}

class EncodeTask final : public Task {
 public:
  EncodeTask(Instance& instance, std::span<std::uint8_t> batch, std::size_t start,
             kernel::Codec codec, int level, std::uint8_t* out) noexcept
      : Task(instance), batch_(batch), start_(start), codec_(codec), level_(level), out_(out) {}

 private:
  void Work(kernel::Scratch& scratch) noexcept override {
    fault_ = kernel::EncodeBatch(batch_, codec_, level_, out_, scratch, &encoded_);
  }

  napi_value Result(napi_env env) noexcept override {
    if (fault_) {
      return MakeFaultError(env, fault_, "encode batch");
    }
    WriteLate(env, pinned(env, 0), kEncodedCount, [this](std::span<std::int32_t> target) {
      WriteEncoded(encoded_, start_, target);
    });
    return nullptr;
  }

  const std::span<std::uint8_t> batch_;
  const std::size_t start_;
  const kernel::Codec codec_;
  const int level_;
  std::uint8_t* const out_;
  kernel::Fault fault_;
  kernel::EncodedBatch encoded_;
};

class DecodeTask final : public Task {
 public:
  DecodeTask(Instance& instance, const BlockTable& table, std::span<const std::uint8_t> batch,
             std::span<std::uint8_t> output) noexcept
      : Task(instance),
        blocks_(table.blocks()),
        target_{blocks_.get(), table.has_footer(), table.section_id()},
        batch_(batch),
        output_(output) {}

 private:
  void Work(kernel::Scratch& scratch) noexcept override {
    fault_ = kernel::DecodeBatch(target_, batch_, output_, scratch, &decoded_);
  }

  napi_value Result(napi_env env) noexcept override {
    if (fault_) {
      return MakeFaultError(env, fault_, "decode batch");
    }
    WriteLate(env, pinned(env, 0), kDecodedCount,
              [this](std::span<std::int32_t> target) { WriteDecoded(decoded_, target); });
    return nullptr;
  }

  const std::shared_ptr<const kernel::BlockTable> blocks_;
  const kernel::Target target_;
  const std::span<const std::uint8_t> batch_;
  const std::span<std::uint8_t> output_;
  kernel::Fault fault_;
  kernel::DecodedBatch decoded_;
};

/// Pins the arguments with the given indexes, and launches.
template <std::size_t kCount>
Napi::Value PinAndLaunch(const Napi::CallbackInfo& info, Task* task,
                         const std::size_t (&indexes)[kCount]) noexcept {
  napi_env env = info.Env();
  if (task == nullptr) {
    ThrowError(env, "ERR_OUT_OF_MEMORY", "Cannot start task: out of memory");
    return info.Env().Undefined();
  }
  for (const std::size_t index : indexes) {
    if (!task->Pin(env, info[index])) {
      Task::Drop(env, task);
      return info.Env().Undefined();
    }
  }
  const napi_value promise = Task::Launch(env, task);
  return promise == nullptr ? info.Env().Undefined() : Napi::Value(env, promise);
}

}  // namespace

Napi::Value EncodeBatch(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "encode batch");
  const std::span<std::uint8_t> slot = arguments.LastingBytes(0, "slot");
  const std::int64_t end =
      arguments.Integer(2, "end", 0, static_cast<std::int64_t>(slot.size()));
  const std::int64_t start = arguments.Integer(1, "start", 0, end);
  const auto codec = static_cast<kernel::Codec>(arguments.Integer(3, "codec", 0, 2));
  const kernel::LevelRange levels = kernel::LevelsOf(codec);
  const auto level = static_cast<int>(arguments.Integer(4, "level", levels.min, levels.max));
  const std::span<std::uint8_t> out = arguments.LastingBytes(5, "out");
  arguments.Int32s(6, "encoded", kEncodedCount);
  if (codec != kernel::Codec::kNone && !arguments.is_wrong()) {
    arguments.Require(out.size() >= static_cast<std::size_t>(end),
                      "\"out\" must be as large as \"slot\"");
    arguments.Require(!Overlap(slot, out), "\"out\" must not overlap \"slot\"");
  }
  if (arguments.is_wrong()) {
    return info.Env().Undefined();
  }
  const auto at = static_cast<std::size_t>(start);
  auto* task = new (std::nothrow)
      EncodeTask(Instance::Of(info.Env()), slot.subspan(at, static_cast<std::size_t>(end) - at),
                 at, codec, level, codec == kernel::Codec::kNone ? nullptr : out.data() + at);
  return PinAndLaunch(info, task, {6, 0, 5});
}

Napi::Value InspectBatch(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "inspect batch");
  const BlockTable* table = BlockTable::From(info.Env(), info[0]);
  if (table == nullptr) {
    arguments.WrongType("blocks", "a BlockTable");
  }
  const std::span<std::uint8_t> batch = arguments.Bytes(1, "batch");
  const std::span<std::int32_t> target = arguments.Int32s(2, "decoded", kDecodedCount);
  if (arguments.is_wrong()) {
    return info.Env().Undefined();
  }
  kernel::DecodedBatch decoded;
  const kernel::Target blocks{table->blocks().get(), table->has_footer(), table->section_id()};
  const kernel::Fault fault = kernel::InspectHead(blocks, batch, batch.size(), &decoded);
  if (fault) {
    napi_throw(info.Env(), MakeFaultError(info.Env(), fault, "decode batch"));
  } else {
    WriteDecoded(decoded, target);
  }
  return info.Env().Undefined();
}

Napi::Value DecodeBatch(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "decode batch");
  const BlockTable* table = BlockTable::From(info.Env(), info[0]);
  if (table == nullptr) {
    arguments.WrongType("blocks", "a BlockTable");
  }
  const std::span<std::uint8_t> batch = arguments.LastingBytes(1, "batch");
  const std::span<std::uint8_t> output = arguments.LastingBytes(2, "output");
  arguments.Int32s(3, "decoded", kDecodedCount);
  arguments.Require(!Overlap(batch, output), "\"output\" must not overlap \"batch\"");
  if (arguments.is_wrong()) {
    return info.Env().Undefined();
  }
  const std::size_t room = std::min(output.size(), kernel::kDecodedRoomBytes);
  auto* task = new (std::nothrow)
      DecodeTask(Instance::Of(info.Env()), *table, batch, output.subspan(room));
  return PinAndLaunch(info, task, {3, 1, 2});
}

}  // namespace pagelane::binding
