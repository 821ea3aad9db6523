#include "binding/batches.h"

#include <algorithm>
#include <memory>
#include <new>
#include <utility>

#include "binding/arguments.h"
#include "binding/blocks.h"
#include "binding/instance.h"
#include "binding/orders.h"
#include "binding/results.h"
#include "kernel/batch.h"
#include "kernel/limits.h"

namespace pagelane::binding {

namespace {

class EncodeTask final : public Task {
 public:
  EncodeTask(Instance& instance, std::span<std::uint8_t> slot, std::size_t start,
             std::size_t end, const kernel::EncodeOptions& options,
             std::shared_ptr<kernel::StoreIndex> store, std::uint8_t* out) noexcept
      : Task(instance),
        slot_(slot),
        start_(start),
        end_(end),
        options_(options),
        store_(std::move(store)),
        out_(out) {
    options_.store = store_.get();
  }

 private:
  void Work(kernel::Scratch& scratch) noexcept override {
    fault_ = kernel::EncodeBatch(slot_, start_, end_, options_, out_, scratch, &encoded_);
  }

  napi_value Result(napi_env env) noexcept override {
    if (fault_) {
      return MakeFaultError(env, fault_, "encode batch");
    }
    WriteLate(env, pinned(env, 0), kEncodedCount,
              [this](std::span<std::int32_t> target) { WriteEncoded(encoded_, target); });
    return nullptr;
  }

  const std::span<std::uint8_t> slot_;
  const std::size_t start_;
  const std::size_t end_;
  kernel::EncodeOptions options_;
  const std::shared_ptr<kernel::StoreIndex> store_;
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
        store_(table.store()),
        hashes_(table.hashes()),
        target_(table.target()),
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
  const std::shared_ptr<kernel::PageStore> store_;
  const std::shared_ptr<kernel::PageHashes> hashes_;
  const kernel::Target target_;
  const std::span<const std::uint8_t> batch_;
  const std::span<std::uint8_t> output_;
  kernel::Fault fault_;
  kernel::DecodedBatch decoded_;
};

}  // namespace

Napi::Value EncodeBatch(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "encode batch");
  const std::span<std::uint8_t> slot = arguments.LastingBytes(0, "slot");
  const std::int64_t end =
      arguments.Integer(2, "end", 0, static_cast<std::int64_t>(slot.size()));
  const std::int64_t start = arguments.Integer(1, "start", 0, end);
  const std::span<std::int32_t> order = arguments.Int32s(3, "order", kOrderCount);
  const auto store = ReadStore(arguments, 4);
  const std::span<std::uint8_t> out = arguments.LastingBytes(5, "out");
  arguments.Int32s(6, "encoded", kEncodedCount);
  kernel::EncodeOptions options;
  if (!arguments.is_wrong()) {
    options = ReadOrder(arguments, order);
  }
  if (options.codec != kernel::Codec::kNone && !arguments.is_wrong()) {
    RequireOut(arguments, slot, static_cast<std::size_t>(end), out);
  }
  if (arguments.is_wrong()) {
    return info.Env().Undefined();
  }
  auto* task = new (std::nothrow)
      EncodeTask(Instance::Of(info.Env()), slot, static_cast<std::size_t>(start),
                 static_cast<std::size_t>(end), options, store, out.data());
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
  const kernel::Fault fault =
      kernel::InspectHead(table->target(), batch, batch.size(), &decoded);
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
