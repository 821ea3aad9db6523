#include "binding/orders.h"

#include "binding/results.h"
#include "binding/stores.h"
#include "kernel/limits.h"

namespace pagelane::binding {

namespace {

std::int32_t CheckOrder(Arguments& arguments, std::span<const std::int32_t> order,
                        std::size_t index, const char* name, std::int64_t min,
                        std::int64_t max) noexcept {
  if (order[index] < min || order[index] > max) {
    arguments.WrongRange("order's \"%s\" must be %lld to %lld: is %d", name,
                         static_cast<long long>(min), static_cast<long long>(max), order[index]);
    return 0;
  }
  return order[index];
}

}  // namespace

kernel::EncodeOptions ReadOrder(Arguments& arguments,
                                std::span<const std::int32_t> order) noexcept {
  constexpr std::int64_t kNumberMax = kernel::kBatchNumberMax;
  kernel::EncodeOptions options;
  options.codec = static_cast<kernel::Codec>(CheckOrder(arguments, order, 0, "codec", 0, 2));
  const kernel::LevelRange levels = kernel::LevelsOf(options.codec);
  options.level = CheckOrder(arguments, order, 1, "level", levels.min, levels.max);
  options.place.number = static_cast<std::uint32_t>(
      CheckOrder(arguments, order, 2, "number", 0, kNumberMax));
  options.place.base = static_cast<std::uint32_t>(
      CheckOrder(arguments, order, 3, "base", 0, options.place.number));
  const std::int32_t flags = CheckOrder(arguments, order, 4, "flags", 0, 3);
  options.keeps = (flags & 1) != 0;
  options.finds_similar = (flags & 2) != 0;
  return options;
}

std::shared_ptr<kernel::StoreIndex> ReadStore(Arguments& arguments, std::size_t index) noexcept {
  napi_valuetype type = napi_undefined;
  napi_typeof(arguments.env(), arguments.value(index), &type);
  if (type == napi_undefined) {
    return nullptr;
  }
  const StoreIndex* store = StoreIndex::From(arguments.env(), arguments.value(index));
  if (store == nullptr) {
    arguments.WrongType("store", "a StoreIndex");
    return nullptr;
  }
  return store->index();
}

bool Overlap(std::span<const std::uint8_t> a, std::span<const std::uint8_t> b) noexcept {
  return !a.empty() && !b.empty() && a.data() < b.data() + b.size() &&
         b.data() < a.data() + a.size();
}

void RequireOut(Arguments& arguments, std::span<const std::uint8_t> slot, std::size_t end,
                std::span<const std::uint8_t> out) noexcept {
  arguments.Require(out.size() >= end, "\"out\" must be as large as \"slot\"");
  arguments.Require(!Overlap(slot, out), "\"out\" must not overlap \"slot\"");
}

}  // namespace pagelane::binding
