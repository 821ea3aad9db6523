#include "binding/memory_registry.h"

#include <sys/random.h>

#include <mutex>
#include <unordered_map>
#include <utility>

namespace pagelane::binding {

namespace {

constexpr std::uint64_t kIdMax = (std::uint64_t{1} << 53) - 1;

struct Registry {
  std::mutex mutex;
  std::unordered_map<std::uint64_t, std::weak_ptr<const HeldMemory>> memories;
};

/// Never destroyed: threads may still ask when the process ends.
Registry& TheRegistry() {
  static auto* registry = new Registry();
  return *registry;
}

std::uint64_t RandomId() noexcept {
  std::uint64_t id = 0;
  // As few bytes as these are given whole, once the system has any.
  while (getrandom(&id, sizeof id, 0) != sizeof id) {
  }
  return id & kIdMax;
}

}  // namespace

std::shared_ptr<const HeldMemory> HoldMemory(std::shared_ptr<kernel::GuestMemory> memory) {
  auto held = std::make_shared<HeldMemory>(HeldMemory{std::move(memory), 0});
  Registry& registry = TheRegistry();
  const std::lock_guard lock(registry.mutex);
  std::erase_if(registry.memories, [](const auto& entry) { return entry.second.expired(); });
  for (;;) {
    const std::uint64_t id = RandomId();
    if (id != 0 && registry.memories.emplace(id, held).second) {
      held->id = id;
      return held;
    }
  }
}

std::shared_ptr<const HeldMemory> FindMemory(std::uint64_t id) {
  Registry& registry = TheRegistry();
  const std::lock_guard lock(registry.mutex);
  const auto found = registry.memories.find(id);
  return found == registry.memories.end() ? nullptr : found->second.lock();
}

}  // namespace pagelane::binding
