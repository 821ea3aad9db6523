// Runs a fuzz target without a fuzzer:
//
//   <target> [file or folder…]   replays the target's valid inputs, and files
//   <target> --seeds <folder>    writes the target's valid inputs
//
// Each input is replayed once as it is, then with its first allocation failing, its second, and so
// on while there are any.
//
// Link with --wrap for each of the functions below.

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <new>

#include "support.h"

namespace {

using Bytes = std::vector<std::uint8_t>;

constexpr int kFailuresMax = 64;  // more than a target has allocations for one input

}  // namespace

// Names that the linker gives: __real_ is the function, __wrap_ is what is called in its place.
extern "C" {
void* __real_malloc(std::size_t bytes);
void* __real_calloc(std::size_t count, std::size_t bytes);
void* __real__ZnwmRKSt9nothrow_t(std::size_t bytes, const std::nothrow_t& tag);
void* __real__ZnamRKSt9nothrow_t(std::size_t bytes, const std::nothrow_t& tag);

void* __wrap_malloc(std::size_t bytes) {
  return FailsNow() ? nullptr : __real_malloc(bytes);
}

void* __wrap_calloc(std::size_t count, std::size_t bytes) {
  return FailsNow() ? nullptr : __real_calloc(count, bytes);
}

void* __wrap__ZnwmRKSt9nothrow_t(std::size_t bytes, const std::nothrow_t& tag) {
  return FailsNow() ? nullptr : __real__ZnwmRKSt9nothrow_t(bytes, tag);
}

void* __wrap__ZnamRKSt9nothrow_t(std::size_t bytes, const std::nothrow_t& tag) {
  return FailsNow() ? nullptr : __real__ZnamRKSt9nothrow_t(bytes, tag);
}
}

namespace {

void Run(const Bytes& input) {
  // A buffer of exactly the input's size: a sanitizer then sees every byte read past it.
  const std::unique_ptr<std::uint8_t[]> exact(new std::uint8_t[input.size()]);
  std::copy(input.begin(), input.end(), exact.get());
  LLVMFuzzerTestOneInput(exact.get(), input.size());
}

/// Runs an input with its first allocation failing, then with its second, while there are any.
int RunFailing(const Bytes& input) {
  allocations_may_fail = true;
  int runs = 0;
  do {
    Check(runs < kFailuresMax, "an input takes few allocations");
    allocations_left = runs++;
    allocation_failed = false;
    Run(input);
  } while (allocation_failed);
  allocations_may_fail = false;
  return runs;
}

int Replay(const std::vector<std::filesystem::path>& files) {
  std::vector<Bytes> inputs;
  for (Seed& seed : Seeds()) {
    inputs.push_back(std::move(seed.bytes));
  }
  for (const std::filesystem::path& path : files) {
    std::ifstream file(path, std::ios::binary);
    Check(file.good(), path.c_str());
    inputs.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  int failing = 0;
  for (const Bytes& input : inputs) {
    Run(input);
    failing += RunFailing(input);
  }
  std::printf("%zu inputs, %d runs with an allocation that fails\n", inputs.size(), failing);
  return 0;
}

int WriteSeeds(const std::filesystem::path& folder) {
  std::filesystem::create_directories(folder);
  for (const Seed& seed : Seeds()) {
    std::ofstream file(folder / seed.name, std::ios::binary);
    file.write(reinterpret_cast<const char*>(seed.bytes.data()),
               static_cast<std::streamsize>(seed.bytes.size()));
    Check(file.good(), "a seed is written");
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 3 && std::strcmp(argv[1], "--seeds") == 0) {
    return WriteSeeds(argv[2]);
  }
  std::vector<std::filesystem::path> files;
  for (int i = 1; i < argc; i++) {
    if (!std::filesystem::is_directory(argv[i])) {
      files.emplace_back(argv[i]);
      continue;
    }
    for (const auto& entry : std::filesystem::directory_iterator(argv[i])) {
      files.push_back(entry.path());
    }
  }
  std::sort(files.begin(), files.end());
  return Replay(files);
}
