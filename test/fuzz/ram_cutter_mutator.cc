#include <algorithm>
#include <iterator>
#include <random>

#include "kernel/bytes.h"
#include "kernel/qemu_format.h"
#include "support.h"

using namespace pagelane::kernel;

// Of libFuzzer: changes bytes as it would without the function below.
extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t bytes,
                                        std::size_t bytes_max);

namespace {

using Bytes = std::vector<std::uint8_t>;
using Random = std::minstd_rand;

constexpr std::size_t kHeadBytes = 2;  // of an input: size of the chunks, mode
constexpr std::uint64_t kFlags[] = {kRamFlagZero,   kRamFlagZero,     kRamFlagPage,
                                    kRamFlagXbzrle, kRamFlagCompress, kRamFlagEos};

/// How long the record at the beginning of `bytes` is, as far as one can tell.
std::size_t RecordBytes(std::span<const std::uint8_t> bytes) {
  if (bytes.size() < kRecordHeaderBytes) {
    return bytes.size();
  }
  const std::uint64_t flags = LoadBe64(bytes.data()) & (kPageBytes - 1);
  std::size_t at = kRecordHeaderBytes;
  if ((flags & kRamFlagEos) != 0) {
    return at;
  }
  if ((flags & kRamFlagContinue) == 0 && at < bytes.size()) {
    at += 1 + bytes[at];
  }
  if ((flags & kRamFlagPage) != 0) {
    at += kPageBytes;
  } else if ((flags & kRamFlagXbzrle) != 0) {
    at += kXbzrleHeadBytes;
    at += at <= bytes.size() ? LoadBe16(bytes.data() + at - 2) : 0;
  } else if ((flags & kRamFlagCompress) != 0) {
    at += kCompressHeadBytes;
    at += at <= bytes.size() ? LoadBe32(bytes.data() + at - 4) : 0;
  } else {
    at++;
  }
  return std::min(at, bytes.size());
}

std::vector<Bytes> Split(std::span<const std::uint8_t> stream) {
  std::vector<Bytes> records;
  while (!stream.empty()) {
    const auto count = static_cast<std::ptrdiff_t>(RecordBytes(stream));
    records.emplace_back(stream.begin(), stream.begin() + count);
    stream = stream.subspan(static_cast<std::size_t>(count));
  }
  return records;
}

Bytes NewRecord(Random& random) {
  const std::uint64_t flag = kFlags[random() % std::size(kFlags)];
  Bytes record(kRecordHeaderBytes);
  if (flag == kRamFlagEos) {
    StoreBe64(record.data(), flag);
    return record;
  }
  const bool names_block = random() % 4 == 0;
  const std::uint64_t page = random() % 4 == 0 ? random() % 8201 : random() % 8;
  StoreBe64(record.data(), page << kPageBits | flag | (names_block ? 0 : kRamFlagContinue));
  if (names_block) {
    const std::string_view name = random() % 2 == 0 ? "a" : "pc.bios";
    record.push_back(static_cast<std::uint8_t>(name.size()));
    record.insert(record.end(), name.begin(), name.end());
  }
  const auto length = static_cast<std::uint8_t>(random() % 20);
  if (flag == kRamFlagXbzrle) {
    record.insert(record.end(), {1, 0, length});
  } else if (flag == kRamFlagCompress) {
    record.insert(record.end(), {0, 0, 0, length});
  }
  const std::size_t body_bytes =
      flag == kRamFlagPage ? kPageBytes : flag == kRamFlagZero ? 1 : std::size_t{length};
  record.insert(record.end(), body_bytes, flag == kRamFlagZero ? 0 : length);
  return record;
}

/// Changes the header, or any of the bytes: mostly the first, where all but contents are.
void MutateRecord(Bytes& record, Random& random) {
  if (record.size() >= kRecordHeaderBytes && random() % 2 == 0) {
    const std::uint64_t header = LoadBe64(record.data());
    const std::uint64_t page = random() % 8 == 0 ? 8200 - random() % 2 : random() % 8;
    const std::uint64_t flags = header & (kPageBytes - 1);
    StoreBe64(record.data(), random() % 4 == 0 ? header ^ std::uint64_t{1} << random() % 64
                                               : page << kPageBits | flags);
    return;
  }
  const std::size_t count = std::min<std::size_t>(record.size(), 24);
  Bytes begin(record.begin(), record.begin() + static_cast<std::ptrdiff_t>(count));
  begin.resize(count + 8);
  begin.resize(LLVMFuzzerMutate(begin.data(), count, begin.size()));
  begin.insert(begin.end(), record.begin() + static_cast<std::ptrdiff_t>(count), record.end());
  record = begin;
}

void Mutate(std::vector<Bytes>& records, Random& random) {
  const std::size_t at = records.empty() ? 0 : random() % records.size();
  const auto here = records.begin() + static_cast<std::ptrdiff_t>(at);
  switch (records.empty() ? 0 : random() % 6) {
    case 0:
      records.insert(here, NewRecord(random));
      break;
    case 1:
      records.erase(here);
      break;
    case 2:
      records.insert(here, Bytes(*here));
      break;
    case 3:
      std::swap(records[at], records[random() % records.size()]);
      break;
    default:
      MutateRecord(*here, random);
  }
}

}  // namespace

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size,
                                               std::size_t size_max, unsigned seed) {
  Random random(seed);
  if (size < kHeadBytes || random() % 8 == 0) {
    return LLVMFuzzerMutate(data, size, size_max);
  }
  if (random() % 8 == 0) {
    data[0] = static_cast<std::uint8_t>(random());
    data[1] = static_cast<std::uint8_t>(random() % 16);
  }
  std::vector<Bytes> records = Split({data + kHeadBytes, size - kHeadBytes});
  for (auto left = 1 + random() % 3; left > 0; left--) {
    Mutate(records, random);
  }
  std::size_t at = kHeadBytes;
  for (const Bytes& record : records) {
    const std::size_t count = std::min(record.size(), size_max - at);
    std::copy_n(record.begin(), count, data + at);
    at += count;
  }
  return at;
}
