#include "kernel/mapping_guard.h"

#include <csignal>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <mutex>

namespace pagelane::kernel {

/// A mapping as the handler reads it, without a lock: `version` is odd while the rest changes.
///
/// Who touches a mapping keeps it, so the entry that a handler looks for stands still; entries
/// that change beside it are passed over.
struct MappingGuard::Entry {
  std::atomic<std::uint32_t> version{0};
  std::atomic<std::uintptr_t> begin{0};
  std::atomic<std::uintptr_t> end{0};
  std::atomic<std::uint64_t> host_page_bytes{0};
  std::atomic<int> file{-1};
  std::atomic<std::uint64_t> file_offset{0};
  std::atomic<std::atomic<bool>*> is_lost{nullptr};
  bool is_used = false;   // with the lock
  Entry* older = nullptr;  // never changes once the handler can see it

  void Change(const FileMapping& mapping, std::atomic<bool>* lost) noexcept;
};

/// Every mapping that is guarded, and what took SIGBUS before.
struct GuardedMappings {
  using Entry = MappingGuard::Entry;

  static Entry* Take() noexcept;
  static void Give(Entry* entry) noexcept;
  static bool Replace(std::uintptr_t address) noexcept;
  static bool ReplaceIn(const Entry& entry, std::uintptr_t address, bool* is_replaced) noexcept;
  static void Install() noexcept;
  static void Handle(int signal, siginfo_t* info, void* context) noexcept;
  static void PassOn(int signal, siginfo_t* info, void* context) noexcept;

  // Entries are used again and never freed: a handler may be looking at any of them.
  static inline std::atomic<Entry*> newest{nullptr};
  static inline std::mutex mutex;
  static inline struct sigaction previous;
};

void MappingGuard::Entry::Change(const FileMapping& mapping, std::atomic<bool>* lost) noexcept {
  // Each store releases: no part is seen before the version is odd. The last is seen after all.
  const std::uint32_t before = version.load(std::memory_order_relaxed);
  version.store(before + 1, std::memory_order_relaxed);
  const auto first = reinterpret_cast<std::uintptr_t>(mapping.bytes);
  begin.store(first, std::memory_order_release);
  end.store(first + mapping.byte_count, std::memory_order_release);
  host_page_bytes.store(mapping.host_page_bytes, std::memory_order_release);
  file.store(mapping.file, std::memory_order_release);
  file_offset.store(mapping.file_offset, std::memory_order_release);
  is_lost.store(lost, std::memory_order_release);
  version.store(before + 2, std::memory_order_release);
}

MappingGuard::Entry* GuardedMappings::Take() noexcept {
  for (Entry* entry = newest.load(); entry != nullptr; entry = entry->older) {
    if (!entry->is_used) {
      entry->is_used = true;
      return entry;
    }
  }
  auto* entry = new Entry();
  entry->is_used = true;
  entry->older = newest.load();
  newest.store(entry);
  return entry;
}

void GuardedMappings::Give(Entry* entry) noexcept {
  entry->Change({}, nullptr);
  entry->is_used = false;
}

/// Puts memory of the process's own where `address` is, if a mapping is there. False if not.
bool GuardedMappings::Replace(std::uintptr_t address) noexcept {
  for (const Entry* entry = newest.load(); entry != nullptr; entry = entry->older) {
    bool is_replaced = false;
    if (ReplaceIn(*entry, address, &is_replaced)) {
      return is_replaced;
    }
  }
  return false;
}

/// False if `address` is not in the mapping of the entry.
bool GuardedMappings::ReplaceIn(const Entry& entry, std::uintptr_t address,
                                bool* is_replaced) noexcept {
  // Each load acquires: the second look at the version comes last.
  const std::uint32_t version = entry.version.load(std::memory_order_acquire);
  const std::uintptr_t begin = entry.begin.load(std::memory_order_acquire);
  const std::uintptr_t end = entry.end.load(std::memory_order_acquire);
  const std::uint64_t page_bytes = entry.host_page_bytes.load(std::memory_order_acquire);
  const int file = entry.file.load(std::memory_order_acquire);
  const std::uint64_t file_offset = entry.file_offset.load(std::memory_order_acquire);
  std::atomic<bool>* is_lost = entry.is_lost.load(std::memory_order_acquire);
  if (version % 2 != 0 || entry.version.load(std::memory_order_relaxed) != version ||
      address < begin || address >= end) {
    return false;
  }
  const std::uint64_t offset = (address - begin) / page_bytes * page_bytes;
  // Behind the end of the file nothing can be had; elsewhere the page alone is missing.
  struct stat status;
  const bool is_behind_end = fstat(file, &status) == 0 &&
                             file_offset + offset >= static_cast<std::uint64_t>(status.st_size);
  const std::uint64_t byte_count = is_behind_end ? end - begin - offset : page_bytes;
  is_lost->store(true);
  // The system call itself is safe in a handler, whatever stands in front of the library's.
  *is_replaced = syscall(SYS_mmap, begin + offset, byte_count, PROT_READ | PROT_WRITE,
                         MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) != -1;
  return true;
}

void GuardedMappings::Handle(int signal, siginfo_t* info, void* context) noexcept {
  const int error = errno;
  // Memory that the hardware lost, and signals that somebody sent, are not ours.
  const bool is_fault = info->si_code == BUS_ADRERR;
  if (!is_fault || !Replace(reinterpret_cast<std::uintptr_t>(info->si_addr))) {
    PassOn(signal, info, context);
  }
  errno = error;
}

void GuardedMappings::PassOn(int signal, siginfo_t* info, void* context) noexcept {
  if ((previous.sa_flags & SA_SIGINFO) != 0) {
    previous.sa_sigaction(signal, info, context);
    return;
  }
  const bool is_sent = info->si_code <= 0;
  if (previous.sa_handler == SIG_IGN && is_sent) {
    return;
  }
  if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN) {
    previous.sa_handler(signal);
    return;
  }
  // The default ends the process: a fault comes again when this returns, a sent signal does not.
  struct sigaction ending = {};
  ending.sa_handler = SIG_DFL;
  sigaction(signal, &ending, nullptr);
  if (is_sent) {
    raise(signal);
  }
}

void GuardedMappings::Install() noexcept {
  static const bool is_installed = [] {
    sigaction(SIGBUS, nullptr, &previous);
    struct sigaction ours = {};
    ours.sa_sigaction = Handle;
    ours.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
    sigemptyset(&ours.sa_mask);
    return sigaction(SIGBUS, &ours, nullptr) == 0;
  }();
  static_cast<void>(is_installed);
}

MappingGuard::MappingGuard(const FileMapping& mapping, std::atomic<bool>* is_lost) noexcept {
  const std::lock_guard lock(GuardedMappings::mutex);
  GuardedMappings::Install();
  entry_ = GuardedMappings::Take();
  entry_->Change(mapping, is_lost);
}

MappingGuard::~MappingGuard() {
  const std::lock_guard lock(GuardedMappings::mutex);
  GuardedMappings::Give(entry_);
}

}  // namespace pagelane::kernel
