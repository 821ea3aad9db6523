/*
 * Guards mappings without Node: mapping_guard CASE. Ends by itself with status 0 where the guard
 * holds, and by SIGBUS where it must not.
 */
#include "kernel/mapping_guard.h"

#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

using pagelane::kernel::FileMapping;
using pagelane::kernel::MappingGuard;

namespace {

constexpr std::size_t kPage = 4096;
constexpr std::size_t kPages = 64;

void Require(bool is_met, const char* what) {
  if (!is_met) {
    std::fprintf(stderr, "not met: %s\n", what);
    std::_Exit(1);
  }
}

/// A file of kPages, mapped here.
struct Mapped {
  Mapped() : file(memfd_create("guarded", MFD_CLOEXEC)) {
    Require(ftruncate(file, kPages * kPage) == 0, "a file");
    bytes = static_cast<std::uint8_t*>(
        mmap(nullptr, kPages * kPage, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0));
    Require(bytes != MAP_FAILED, "a mapping");
    std::memset(bytes, 7, kPages * kPage);
  }
  ~Mapped() {
    munmap(bytes, kPages * kPage);
    close(file);
  }
  FileMapping mapping() const { return {bytes, kPages * kPage, kPage, file, 0}; }
  std::uint8_t At(std::size_t page) const {
    return static_cast<volatile std::uint8_t*>(bytes)[page * kPage];
  }
  void Truncate(std::size_t pages) const {
    Require(ftruncate(file, static_cast<off_t>(pages * kPage)) == 0, "truncation");
  }

  int file;
  std::uint8_t* bytes;
};

void Guarded() {
  Mapped mapped;
  std::atomic<bool> is_lost{false};
  const MappingGuard guard(mapped.mapping(), &is_lost);
  mapped.Truncate(10);
  Require(mapped.At(9) == 7 && !is_lost, "what is left of the file");
  Require(mapped.At(20) == 0 && is_lost, "zeros behind its end");
  mapped.bytes[63 * kPage] = 1;
  Require(mapped.At(63) == 1 && mapped.At(9) == 7, "all of it may be touched");
  Require(mapped.At(10) == 0, "the page behind the end");
}

/// Many threads fall into many mappings, while others come and go.
void Together() {
  std::atomic<bool> is_done{false};
  std::thread others([&] {
    while (!is_done) {
      Mapped mapped;
      std::atomic<bool> is_lost{false};
      const MappingGuard guard(mapped.mapping(), &is_lost);
      Require(mapped.At(1) == 7 && !is_lost, "others are left alone");
    }
  });
  for (int round = 0; round < 100; round++) {
    Mapped mapped;
    std::atomic<bool> is_lost{false};
    const MappingGuard guard(mapped.mapping(), &is_lost);
    std::vector<std::thread> readers;
    for (std::size_t reader = 0; reader < 4; reader++) {
      readers.emplace_back([&mapped, &is_lost] {
        while (!is_lost) {
          for (std::size_t page = 0; page < kPages; page++) {
            const std::uint8_t byte = mapped.At(page);
            Require(byte == 7 || byte == 0, "its own bytes, or zeros");
          }
        }
      });
    }
    mapped.Truncate(0);
    for (std::thread& reader : readers) {
      reader.join();
    }
  }
  is_done = true;
  others.join();
}

void Elsewhere() {
  Mapped guarded;
  Mapped mapped;
  std::atomic<bool> is_lost{false};
  const MappingGuard guard(guarded.mapping(), &is_lost);
  mapped.Truncate(0);
  mapped.At(0);
}

void After() {
  Mapped mapped;
  std::atomic<bool> is_lost{false};
  { const MappingGuard guard(mapped.mapping(), &is_lost); }
  mapped.Truncate(0);
  mapped.At(0);
}

void Sent() {
  Mapped mapped;
  std::atomic<bool> is_lost{false};
  const MappingGuard guard(mapped.mapping(), &is_lost);
  raise(SIGBUS);
}

/// What took SIGBUS before takes it still, with the address, but for what is guarded.
void Chained() {
  static Mapped unguarded;
  struct sigaction before = {};
  before.sa_flags = SA_SIGINFO;
  before.sa_sigaction = [](int, siginfo_t* info, void*) {
    std::_Exit(info->si_addr == unguarded.bytes + 3 * kPage ? 42 : 1);
  };
  sigaction(SIGBUS, &before, nullptr);
  Guarded();
  unguarded.Truncate(0);
  unguarded.At(3);
}

void Ignored() {
  signal(SIGBUS, SIG_IGN);
  Sent();
  Guarded();
}

}  // namespace

int main(int count, char** words) {
  const std::string name = count == 2 ? words[1] : "";
  if (name == "guarded") {
    Guarded();
  } else if (name == "together") {
    Together();
  } else if (name == "elsewhere") {
    Elsewhere();
  } else if (name == "after") {
    After();
  } else if (name == "sent") {
    Sent();
  } else if (name == "chained") {
    Chained();
  } else if (name == "ignored") {
    Ignored();
  } else {
    return 2;
  }
  return 0;
}
