#include "kernel/batch_contents.h"

#include <algorithm>
#include <cstring>

#include "kernel/limits.h"

/*
 * A batch from the wire, as far as it is the same wherever its pages go
 *
 *   1. copy         header and map, so that what is checked is what is used
 *   2. inspect      every field against its limits; the size of the output follows
 *   3. decompress   the literals, to exactly the size that the map takes
 */

namespace pagelane::kernel {

namespace {

/// Puts the pages of the store that a map names as prefix one after another.
std::span<const std::uint8_t> GatherPrefix(const Target& target,
                                           std::span<const std::uint8_t> map,
                                           std::uint8_t* prefix) noexcept {
  std::size_t bytes = 0;
  for (std::size_t at = 0; at < map.size(); at += kMapEntryBytes) {
    const MapEntry entry = MapEntry::Load(map.data() + at);
    if (entry.kind == EntryKind::kPrefix) {
      const std::size_t run_bytes = entry.count * target.store->page_bytes();
      std::memcpy(prefix + bytes,
                  target.store->At(static_cast<std::uint32_t>(entry.first_page)), run_bytes);
      bytes += run_bytes;
    }
  }
  return {prefix, bytes};
}

/// Points `literals` at the decoded literals: in the batch itself, or in the thread's scratch.
Fault DecodeLiterals(const Target& target, const BatchHeader& header,
                     std::span<const std::uint8_t> map, std::span<const std::uint8_t> wire,
                     Scratch& scratch, const std::uint8_t** literals) noexcept {
  const auto codec = static_cast<Codec>(header.codec);
  if (codec == Codec::kNone) {
    *literals = wire.data();
    return {};
  }
  std::uint8_t* decoded = scratch.Decoding()->literals;
  std::span<const std::uint8_t> prefix;
  if (codec == Codec::kZstd && target.store != nullptr) {
    std::uint8_t* room = scratch.Prefix();
    if (room == nullptr) {
      return {FaultCode::kNoMemory, "bytes needed:", kPrefixBytesMax, 0};
    }
    prefix = GatherPrefix(target, map, room);
  }
  *literals = decoded;
  switch (scratch.compressor().Decompress(codec, wire, prefix,
                                          {decoded, header.literal_bytes})) {
    case Decompressed::kExact:
      return {};
    case Decompressed::kNoMemory:
      return {FaultCode::kNoMemory, "bytes needed:", header.literal_bytes, 0};
    case Decompressed::kMalformed:
      break;
  }
  return {FaultCode::kLiterals, "literals must decompress to bytes", header.literal_bytes, 0};
}

/// Bytes of all references of a map that has been inspected.
std::size_t ReferenceBytes(std::span<const std::uint8_t> map) noexcept {
  std::size_t count = 0;
  for (std::size_t at = 0; at < map.size(); at += kMapEntryBytes) {
    const MapEntry entry = MapEntry::Load(map.data() + at);
    count += ReferencesOf(entry.kind, entry.flags);
  }
  return count * kReferenceBytes;
}

}  // namespace

Fault ReferenceReader::Read(const MapEntry& entry, Slots* slots) noexcept {
  const std::size_t count = ReferencesOf(entry.kind, entry.flags);
  slots->keeps = (entry.flags & kEntryKeeps) != 0;
  for (std::size_t i = 0; i < count; i++) {
    const auto slot = LoadLe<std::uint32_t>(next_);
    next_ += kReferenceBytes;
    if (const Fault fault = CheckSlots(target_, slot, entry.count)) {
      return fault;
    }
    (slots->keeps && i + 1 == count ? slots->kept : slots->like) = slot;
  }
  return {};
}

Fault OpenBatch(const Target& target, std::span<const std::uint8_t> batch, Scratch& scratch,
                DecodedBatch* decoded, BatchContents* contents) noexcept {
  DecodeRoom* room = scratch.Decoding();
  if (room == nullptr) {
    return {FaultCode::kNoMemory, "bytes needed:", sizeof(DecodeRoom), 0};
  }
  const std::size_t copied = std::min(batch.size(), sizeof room->head);
  if (copied > 0) {
    std::memcpy(room->head, batch.data(), copied);
  }
  if (const Fault fault = InspectHead(target, {room->head, copied}, batch.size(), decoded)) {
    return fault;
  }
  contents->room = room;
  contents->head = room->head;
  contents->header = BatchHeader::Load(room->head);
  contents->map = {room->head + kBatchHeaderBytes, contents->header.map_bytes};
  const std::uint8_t* literals = nullptr;
  const auto wire = batch.subspan(kBatchHeaderBytes + contents->map.size());
  if (const Fault fault =
          DecodeLiterals(target, contents->header, contents->map, wire, scratch, &literals)) {
    return fault;
  }
  contents->references = {literals, ReferenceBytes(contents->map)};
  contents->contents = literals + contents->references.size();
  return {};
}

}  // namespace pagelane::kernel
