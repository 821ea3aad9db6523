#include "binding/memory_batches.h"

#include <new>
#include <utility>

#include "binding/arguments.h"
#include "binding/blocks.h"
#include "binding/dirty_logs.h"
#include "binding/instance.h"
#include "binding/memory.h"
#include "binding/orders.h"
#include "binding/results.h"
#include "binding/stores.h"
#include "binding/tags.h"
#include "kernel/batch_apply.h"
#include "kernel/hash.h"
#include "kernel/memory_gather.h"

namespace pagelane::binding {

namespace {

/// Marks objects made by the constructor, so that no other object is taken for one.
constexpr napi_type_tag kTag = {0x3a90c5de172b48f6, 0xc4d81f5b9e62a703};

/// Words of a bitmap, 64 pages each, in the script's array of halves.
std::span<const std::uint64_t> ReadWords(Arguments& arguments, std::size_t index) noexcept {
  const std::span<std::uint32_t> halves = arguments.LastingUint32s(index, "words");
  if (!arguments.is_wrong()) {
    arguments.Require(reinterpret_cast<std::uintptr_t>(halves.data()) % 8 == 0,
                      "\"words\" must begin at a multiple of 8 bytes");
  }
  return {reinterpret_cast<const std::uint64_t*>(halves.data()), halves.size() / 2};
}

/// Reads (memory, block, words, from, end) from the first arguments.
kernel::PageRange ReadRange(Arguments& arguments, const kernel::GuestMemory* memory) noexcept {
  kernel::PageRange range;
  if (memory == nullptr) {
    return range;
  }
  range.block = static_cast<std::uint16_t>(arguments.Integer(
      1, "block", 0, static_cast<std::int64_t>(memory->block_count()) - 1));
  range.words = ReadWords(arguments, 2);
  if (arguments.is_wrong()) {
    return range;
  }
  const auto pages = static_cast<std::int64_t>(memory->PageCount(range.block));
  const std::int64_t end = arguments.Integer(4, "end", 0, pages);
  range.from = static_cast<std::uint64_t>(arguments.Integer(3, "from", 0, end));
  range.end = static_cast<std::uint64_t>(end);
  arguments.Require(range.words.size() >= (range.end + 63) / 64,
                    "\"words\" must have a bit for every page");
  return range;
}

/// The digests that an argument is; null if it is undefined, or wrong.
std::shared_ptr<kernel::PageDigests> ReadDigests(Arguments& arguments, std::size_t index,
                                                 const kernel::GuestMemory* memory) noexcept {
  napi_valuetype type = napi_undefined;
  napi_typeof(arguments.env(), arguments.value(index), &type);
  if (type == napi_undefined || arguments.is_wrong()) {
    return nullptr;
  }
  const PageDigests* digests = PageDigests::From(arguments.env(), arguments.value(index));
  if (digests == nullptr) {
    arguments.WrongType("digests", "PageDigests");
    return nullptr;
  }
  arguments.Require(&digests->digests()->memory() == memory, "\"digests\" must be of the memory");
  return digests->digests();
}

class EncodePagesTask final : public Task {
 public:
  EncodePagesTask(Instance& instance, std::shared_ptr<const kernel::GuestMemory> memory,
                  const kernel::PageRange& range, std::span<std::uint8_t> slot,
                  const kernel::EncodeOptions& options,
                  std::shared_ptr<kernel::StoreIndex> store, std::uint8_t* out,
                  std::shared_ptr<kernel::PageDigests> digests) noexcept
      : Task(instance),
        memory_(std::move(memory)),
        digests_(std::move(digests)),
        range_(range),
        slot_(slot),
        options_(options),
        store_(std::move(store)),
        out_(out) {
    options_.store = store_.get();
    range_.digests = digests_.get();
  }

 private:
  void Work(kernel::Scratch& scratch) noexcept override {
    fault_ = kernel::GatherPages(*memory_, range_, slot_, scratch, &gathered_);
    if (!fault_) {
      const kernel::SealedBatch& sealed = gathered_.sealed;
      // Without contents there is nothing to compress.
      options_.codec = sealed.literal_bytes == 0 ? kernel::Codec::kNone : options_.codec;
      fault_ = kernel::EncodeBatch(slot_, sealed.start, sealed.end, options_, out_, scratch,
                                   &encoded_);
    }
  }

  napi_value Result(napi_env env) noexcept override {
    if (fault_) {
      return MakeFaultError(env, fault_, "encode pages");
    }
    WriteLate(env, pinned(env, 0), kSealedCount, [this](std::span<std::int32_t> target) {
      WriteSealed(gathered_.sealed, target);
    });
    WriteLate(env, pinned(env, 1), kEncodedCount + 1, [this](std::span<std::int32_t> target) {
      WriteEncoded(encoded_, target);
      target[kEncodedCount] = static_cast<std::int32_t>(gathered_.next - range_.from);
    });
    return nullptr;
  }

  const std::shared_ptr<const kernel::GuestMemory> memory_;
  const std::shared_ptr<kernel::PageDigests> digests_;
  kernel::PageRange range_;
  const std::span<std::uint8_t> slot_;
  kernel::EncodeOptions options_;
  const std::shared_ptr<kernel::StoreIndex> store_;
  std::uint8_t* const out_;
  kernel::Gathered gathered_;
  kernel::EncodedBatch encoded_;
  kernel::Fault fault_;
};

class HashPagesTask final : public Task {
 public:
  HashPagesTask(Instance& instance, std::shared_ptr<const kernel::GuestMemory> memory,
                const kernel::PageRange& range, std::span<const std::uint8_t> secret,
                std::span<std::uint8_t> hashes,
                std::shared_ptr<kernel::PageDigests> digests) noexcept
      : Task(instance),
        memory_(std::move(memory)),
        digests_(std::move(digests)),
        range_(range),
        secret_(secret),
        hashes_(hashes) {
    range_.digests = digests_.get();
  }

 private:
  void Work(kernel::Scratch& scratch) noexcept override {
    fault_ = kernel::HashPages(*memory_, range_, secret_.data(), scratch, hashes_.data());
  }

  napi_value Result(napi_env env) noexcept override {
    return fault_ ? MakeFaultError(env, fault_, "hash pages") : nullptr;
  }

  const std::shared_ptr<const kernel::GuestMemory> memory_;
  const std::shared_ptr<kernel::PageDigests> digests_;
  kernel::PageRange range_;
  const std::span<const std::uint8_t> secret_;
  const std::span<std::uint8_t> hashes_;
  kernel::Fault fault_;
};

class ApplyTask final : public Task {
 public:
  ApplyTask(Instance& instance, const BlockTable& table,
            std::shared_ptr<kernel::MemoryTarget> memory,
            std::span<const std::uint8_t> batch) noexcept
      : Task(instance),
        blocks_(table.blocks()),
        store_(table.store()),
        target_(table.target()),
        memory_(std::move(memory)),
        batch_(batch) {}

 private:
  void Work(kernel::Scratch& scratch) noexcept override {
    fault_ = kernel::ApplyBatch(target_, *memory_, batch_, scratch, &decoded_);
  }

  napi_value Result(napi_env env) noexcept override {
    if (fault_) {
      return MakeFaultError(env, fault_, "apply batch");
    }
    WriteLate(env, pinned(env, 0), kDecodedCount,
              [this](std::span<std::int32_t> target) { WriteDecoded(decoded_, target); });
    return nullptr;
  }

  const std::shared_ptr<const kernel::BlockTable> blocks_;
  const std::shared_ptr<kernel::PageStore> store_;
  const kernel::Target target_;
  const std::shared_ptr<kernel::MemoryTarget> memory_;
  const std::span<const std::uint8_t> batch_;
  kernel::DecodedBatch decoded_;
  kernel::Fault fault_;
};

/// Whether batches of these blocks fit this memory.
bool AreAlike(const kernel::BlockTable& blocks, const kernel::GuestMemory& memory) noexcept {
  bool are_alike =
      blocks.page_bits() == memory.page_bits() && blocks.count() == memory.block_count();
  for (std::size_t index = 0; are_alike && index < blocks.count(); index++) {
    are_alike = blocks.at(index).page_count == memory.PageCount(index);
  }
  return are_alike;
}

}  // namespace

Napi::Function MemoryTarget::Define(napi_env env) {
  return DefineClass(env, "MemoryTarget", {InstanceMethod<&MemoryTarget::AddHeld>("addHeld")});
}

MemoryTarget* MemoryTarget::From(napi_env env, napi_value value) noexcept {
  return Untag<MemoryTarget>(env, value, kTag);
}

MemoryTarget::MemoryTarget(const Napi::CallbackInfo& info) : Napi::ObjectWrap<MemoryTarget>(info) {
  Arguments arguments(info, "make memory target");
  const auto memory = ReadMemory(arguments, 0);
  if (!arguments.is_wrong()) {
    for (std::size_t block = 0; block < memory->block_count(); block++) {
      arguments.Require(memory->block(block).is_writable, "guest memory must be writable");
    }
  }
  if (arguments.is_wrong()) {
    return;
  }
  // Buffers among its blocks live as long as this object.
  memory_ = Napi::Persistent(info[0].As<Napi::Object>());
  target_ = std::make_shared<kernel::MemoryTarget>(memory);
  if (!target_->is_usable()) {
    ThrowError(info.Env(), "ERR_OUT_OF_MEMORY", "Cannot make memory target: out of memory");
  } else if (napi_type_tag_object(info.Env(), info.This(), &kTag) != napi_ok) {
    ThrowError(info.Env(), nullptr, "Cannot make memory target: object cannot be marked");
  }
}

Napi::Value MemoryTarget::AddHeld(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "add pages");
  const auto block = static_cast<std::size_t>(arguments.Integer(
      0, "block", 0, static_cast<std::int64_t>(target_->memory().block_count()) - 1));
  const std::span<const std::uint64_t> words = ReadWords(arguments, 1);
  if (!arguments.is_wrong()) {
    target_->AddHeld(block, words);
  }
  return info.Env().Undefined();
}

Napi::Value EncodePages(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "encode pages");
  const auto memory = ReadMemory(arguments, 0);
  const kernel::PageRange range = ReadRange(arguments, memory.get());
  const std::span<std::uint8_t> slot = arguments.LastingBytes(5, "slot");
  const std::span<std::int32_t> order = arguments.Int32s(6, "order", kOrderCount);
  const auto store = ReadStore(arguments, 7);
  const std::span<std::uint8_t> out = arguments.LastingBytes(8, "out");
  arguments.Int32s(9, "sealed", kSealedCount);
  arguments.Int32s(10, "encoded", kEncodedCount + 1);
  const auto digests = ReadDigests(arguments, 11, memory.get());
  if (!arguments.is_wrong()) {
    const std::size_t slot_min = kernel::kSlotRoomBytes + (std::size_t{2} << memory->page_bits());
    arguments.Require(slot.size() >= slot_min, "\"slot\" must have room for two pages");
    arguments.Require(range.end - range.from <= INT32_MAX, "pages must be fewer than 2^31");
  }
  const kernel::EncodeOptions options =
      arguments.is_wrong() ? kernel::EncodeOptions{} : ReadOrder(arguments, order);
  if (options.codec != kernel::Codec::kNone && !arguments.is_wrong()) {
    RequireOut(arguments, slot, slot.size(), out);
  }
  if (arguments.is_wrong()) {
    return info.Env().Undefined();
  }
  auto* task = new (std::nothrow) EncodePagesTask(Instance::Of(info.Env()), memory, range, slot,
                                                  options, store, out.data(), digests);
  return PinAndLaunch(info, task, {9, 10, 0, 5, 8, 2});
}

Napi::Value HashPages(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "hash pages");
  const auto memory = ReadMemory(arguments, 0);
  const kernel::PageRange range = ReadRange(arguments, memory.get());
  const std::span<std::uint8_t> secret = arguments.LastingBytes(5, "secret");
  const std::span<std::uint8_t> hashes = arguments.LastingBytes(6, "hashes");
  const auto digests = ReadDigests(arguments, 7, memory.get());
  if (!arguments.is_wrong()) {
    arguments.Require(secret.size() == kernel::kHashSecretBytes, "\"secret\" must have 192 bytes");
    arguments.Require(hashes.size() / kernel::kPageHashBytes >= range.end - range.from,
                      "\"hashes\" must have 16 bytes for every page");
  }
  if (arguments.is_wrong()) {
    return info.Env().Undefined();
  }
  auto* task = new (std::nothrow)
      HashPagesTask(Instance::Of(info.Env()), memory, range, secret, hashes, digests);
  return PinAndLaunch(info, task, {0, 2, 5, 6});
}

Napi::Value ApplyBatch(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "apply batch");
  const BlockTable* table = BlockTable::From(info.Env(), info[0]);
  if (table == nullptr) {
    arguments.WrongType("blocks", "a BlockTable");
  }
  const MemoryTarget* memory = MemoryTarget::From(info.Env(), info[1]);
  if (memory == nullptr) {
    arguments.WrongType("memory", "a MemoryTarget");
  }
  const std::span<std::uint8_t> batch = arguments.LastingBytes(2, "batch");
  arguments.Int32s(3, "decoded", kDecodedCount);
  if (!arguments.is_wrong()) {
    arguments.Require(AreAlike(*table->blocks(), memory->target()->memory()),
                      "blocks must be those of the memory");
  }
  if (arguments.is_wrong()) {
    return info.Env().Undefined();
  }
  auto* task = new (std::nothrow)
      ApplyTask(Instance::Of(info.Env()), *table, memory->target(), batch);
  return PinAndLaunch(info, task, {3, 1, 2});
}

}  // namespace pagelane::binding
