#include "mend.h"

#include <algorithm>

using namespace pagelane::kernel;

namespace {

constexpr std::size_t kLiteralsMax = 16 * 1024;  // more than an input has

Compressor& Codecs() {
  static Compressor compressor;
  return compressor;
}

using Bytes = std::vector<std::uint8_t>;

/// The pages that a map names as prefix, as far as the store has them.
Bytes PrefixOf(std::span<const MapEntry> map, std::span<const std::uint8_t> stored) {
  Bytes prefix;
  for (const MapEntry& entry : map) {
    const std::uint64_t slots = stored.size() / kPageBytes;
    if (entry.kind == EntryKind::kPrefix && entry.first_page < slots &&
        entry.count <= slots - entry.first_page && prefix.size() < kPrefixBytesMax / 2) {
      const auto first = stored.subspan(entry.first_page * kPageBytes, entry.count * kPageBytes);
      prefix.insert(prefix.end(), first.begin(), first.end());
    }
  }
  return prefix;
}

std::size_t ContentBytes(const MapEntry& entry) {
  return std::min(ContentBytesOf(entry, kPageBytes), kLiteralsMax);
}

/// Gives each entry its part of the literals. False if they are too few or too many.
bool Share(std::span<const MapEntry> map, std::span<const std::uint8_t> literals,
           BatchParts* parts) {
  parts->entries.clear();
  for (const MapEntry& entry : map) {
    EntryParts& part = parts->entries.emplace_back(EntryParts{entry, {}, {}});
    for (auto left = ReferencesOf(entry.kind, entry.flags); left > 0; left--) {
      if (literals.size() < kReferenceBytes) {
        return false;
      }
      part.references.push_back(LoadLe<std::uint32_t>(literals.data()));
      literals = literals.subspan(kReferenceBytes);
    }
  }
  for (EntryParts& part : parts->entries) {
    const std::size_t count = ContentBytesOf(part.entry, kPageBytes);
    if (literals.size() < count) {
      return false;
    }
    part.contents.assign(literals.begin(), literals.begin() + static_cast<std::ptrdiff_t>(count));
    literals = literals.subspan(count);
  }
  return literals.empty();
}

/// References, then contents, each as many as its entry takes.
Bytes LiteralsOf(const BatchParts& parts) {
  Bytes literals;
  for (const EntryParts& part : parts.entries) {
    for (std::size_t i = 0; i < ReferencesOf(part.entry.kind, part.entry.flags); i++) {
      std::uint8_t bytes[kReferenceBytes];
      StoreLe<std::uint32_t>(bytes, i < part.references.size() ? part.references[i] : 0);
      literals.insert(literals.end(), bytes, bytes + kReferenceBytes);
    }
  }
  for (const EntryParts& part : parts.entries) {
    const std::size_t wanted = literals.size() + ContentBytes(part.entry);
    literals.insert(literals.end(), part.contents.begin(), part.contents.end());
    literals.resize(std::min(wanted, kLiteralsMax), 1);
  }
  return literals;
}

}  // namespace

bool TakeApart(std::span<const std::uint8_t> batch, std::span<const std::uint8_t> stored,
               BatchParts* parts) {
  if (batch.size() < kBatchHeaderBytes) {
    return false;
  }
  const BatchHeader header = BatchHeader::Load(batch.data());
  const std::size_t room = batch.size() - kBatchHeaderBytes;
  if (header.map_bytes > room || header.wire_bytes != room - header.map_bytes ||
      header.literal_bytes > kLiteralsMax ||
      header.codec > static_cast<std::uint8_t>(Codec::kZstd)) {
    return false;
  }
  parts->header.assign(batch.begin(), batch.begin() + kBatchHeaderBytes);
  parts->codec = static_cast<Codec>(header.codec);
  std::vector<MapEntry> map;
  for (std::size_t at = 0; at + kMapEntryBytes <= header.map_bytes; at += kMapEntryBytes) {
    map.push_back(MapEntry::Load(batch.data() + kBatchHeaderBytes + at));
  }
  const std::span<const std::uint8_t> wire = batch.subspan(kBatchHeaderBytes + header.map_bytes);
  if (parts->codec == Codec::kNone) {
    return Share(map, wire, parts);
  }
  Bytes literals(header.literal_bytes);
  return Codecs().Decompress(parts->codec, wire, PrefixOf(map, stored), literals) ==
             Decompressed::kExact &&
         Share(map, literals, parts);
}

std::vector<std::uint8_t> PutTogether(const BatchParts& parts,
                                      std::span<const std::uint8_t> stored) {
  std::vector<MapEntry> map;
  BatchHeader header = BatchHeader::Load(parts.header.data());
  header.page_bits = kPageBits;
  header.page_count = 0;
  for (const EntryParts& part : parts.entries) {
    map.push_back(part.entry);
    header.page_count += IsPageKind(part.entry.kind) ? part.entry.count : 0;
  }
  Bytes literals = LiteralsOf(parts);
  header.literal_bytes = static_cast<std::uint32_t>(literals.size());
  header.codec = static_cast<std::uint8_t>(Codec::kNone);
  if (parts.codec != Codec::kNone && literals.size() > 1) {
    Bytes packed(literals.size() - 1);
    packed.resize(
        Codecs().Compress(parts.codec, 1, literals, PrefixOf(map, stored), packed));
    if (!packed.empty()) {
      header.codec = static_cast<std::uint8_t>(parts.codec);
      literals = packed;
    }
  }
  header.map_bytes = static_cast<std::uint32_t>(map.size() * kMapEntryBytes);
  header.wire_bytes = static_cast<std::uint32_t>(literals.size());
  Bytes batch(kBatchHeaderBytes + header.map_bytes);
  header.Store(batch.data());
  for (std::size_t i = 0; i < map.size(); i++) {
    map[i].Store(batch.data() + kBatchHeaderBytes + i * kMapEntryBytes);
  }
  batch.insert(batch.end(), literals.begin(), literals.end());
  return batch;
}

void MendChecksum(std::span<std::uint8_t> batch, Destination& destination) {
  const Fault fault = destination.Take(batch);
  if (fault.code == FaultCode::kChecksum) {
    BatchHeader header = BatchHeader::Load(batch.data());
    header.checksum = fault.seen;
    header.Store(batch.data());
  }
}
