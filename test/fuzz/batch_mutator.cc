#include "batches.h"
#include "mutate_batch.h"

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size,
                                               std::size_t size_max, unsigned seed) {
  if (size < 1 || size_max < 2) {
    return LLVMFuzzerMutate(data, size, size_max);
  }
  if (seed % 64 == 0) {
    data[0] ^= static_cast<std::uint8_t>(1U << (seed / 64 % 2));
  }
  static Destination destination;
  destination.Begin((data[0] & 1) != 0, (data[0] & 2) == 0, SampleStore());
  return 1 + MutateBatch(data + 1, size - 1, size_max - 1, seed / 64, destination);
}
