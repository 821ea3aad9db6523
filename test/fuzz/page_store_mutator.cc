#include <algorithm>

#include "kernel/bytes.h"
#include "mutate_batch.h"

using namespace pagelane::kernel;

namespace {

using Bytes = std::vector<std::uint8_t>;

constexpr std::size_t kLengthBytes = 2;

/// Splits what follows the first byte of an input into its batches.
std::vector<Bytes> Split(std::span<const std::uint8_t> rest) {
  std::vector<Bytes> batches;
  while (rest.size() >= kLengthBytes) {
    const std::size_t stated = LoadLe<std::uint16_t>(rest.data());
    rest = rest.subspan(kLengthBytes);
    const std::size_t count = std::min(stated, rest.size());
    batches.emplace_back(rest.begin(), rest.begin() + static_cast<std::ptrdiff_t>(count));
    rest = rest.subspan(count);
  }
  return batches;
}

std::size_t Join(const std::vector<Bytes>& batches, std::span<std::uint8_t> rest) {
  std::size_t at = 0;
  for (const Bytes& batch : batches) {
    if (batch.size() + kLengthBytes > rest.size() - at) {
      break;
    }
    StoreLe<std::uint16_t>(rest.data() + at, static_cast<std::uint16_t>(batch.size()));
    std::copy(batch.begin(), batch.end(), rest.begin() + static_cast<std::ptrdiff_t>(at) + 2);
    at += kLengthBytes + batch.size();
  }
  return at;
}

/// Changes one batch, where the ones before it have been taken.
void MutateOne(std::vector<Bytes>& batches, std::size_t which, std::size_t growth, unsigned seed,
               Destination& destination) {
  for (std::size_t i = 0; i < which; i++) {
    destination.Take(batches[i]);
  }
  Bytes& batch = batches[which];
  const std::size_t count = batch.size();
  batch.resize(std::min<std::size_t>(count + growth, 0xffff));
  batch.resize(MutateBatch(batch.data(), count, batch.size(), seed, destination));
}

}  // namespace

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size,
                                               std::size_t size_max, unsigned seed) {
  std::vector<Bytes> batches;
  if (size > 0) {
    batches = Split({data + 1, size - 1});
  }
  if (batches.empty() || seed % 32 == 0) {
    return LLVMFuzzerMutate(data, size, size_max);
  }
  const unsigned way = seed / 32 % 8;
  const std::size_t which = seed / 256 % batches.size();
  const std::size_t other = seed / 4096 % batches.size();
  const auto here = batches.begin() + static_cast<std::ptrdiff_t>(which);
  if (way == 0 && batches.size() > 1) {
    batches.erase(here);
  } else if (way == 1) {
    batches.insert(here, Bytes(batches[other]));
  } else if (way == 2) {
    std::swap(batches[which], batches[other]);
  } else {
    static Destination destination;
    destination.Begin((data[0] & 1) != 0, true);
    MutateOne(batches, which, size_max - std::min(size, size_max), seed, destination);
  }
  return 1 + Join(batches, {data + 1, size_max - 1});
}
