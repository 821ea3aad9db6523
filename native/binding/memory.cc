#include "binding/memory.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <string>
#include <utility>

#include "binding/blocks.h"
#include "binding/memory_view.h"
#include "binding/page_pieces.h"
#include "binding/tags.h"
#include "kernel/limits.h"
#include "kernel/memory_holes.h"

namespace pagelane::binding {

namespace {

/// Marks objects made by the constructor, so that no other object is taken for one.
constexpr napi_type_tag kTag = {0xd2976be0145fa38c, 0x7b3e90c8f5124da6};

/* Fixed by the system: linux/memfd.h */
constexpr unsigned kHugePageShift = 26;

constexpr std::int64_t kPagesMax = kernel::kBlockBytesMax >> kernel::kPageBitsMin;
constexpr std::size_t kMessageBytes = 256;

void ThrowMemoryError(napi_env env, const char* code, const char* text, int error) noexcept {
  napi_throw(env, MakeSystemError(env, code, text, error));
}

void ThrowFault(napi_env env, const kernel::MemoryFault& fault, const char* name,
                const char* other) noexcept {
  const auto wanted = static_cast<unsigned long long>(fault.wanted);
  char text[2 * kMessageBytes + 256];
  const char* code = "ERR_MEMORY_MAP";
  switch (fault.step) {
    case kernel::MemoryStep::kFile:
      code = "ERR_MEMORY_OPEN";
      std::snprintf(text, sizeof text, "Cannot map block \"%s\": %s", name,
                    fault.error == 0 ? "not a regular file" : "its file cannot be used");
      break;
    case kernel::MemoryStep::kSize:
      code = "ERR_MEMORY_SIZE";
      std::snprintf(text, sizeof text,
                    "Cannot map block \"%s\": its size must be a multiple of %llu bytes, not 0",
                    name, wanted);
      break;
    case kernel::MemoryStep::kOffset:
      code = "ERR_MEMORY_SIZE";
      std::snprintf(text, sizeof text,
                    "Cannot map block \"%s\": its offset must be a multiple of %llu bytes", name,
                    wanted);
      break;
    case kernel::MemoryStep::kShort:
      code = "ERR_MEMORY_SIZE";
      std::snprintf(text, sizeof text,
                    "Cannot map block \"%s\": offset and size must be within its file of %llu bytes",
                    name, wanted);
      break;
    case kernel::MemoryStep::kOverlap:
      code = "ERR_MEMORY_OVERLAP";
      std::snprintf(text, sizeof text,
                    "Cannot map block \"%s\": block \"%s\" has some of the same memory", name,
                    other);
      break;
    default:
      std::snprintf(text, sizeof text, "Cannot map block \"%s\": the system refuses it", name);
  }
  ThrowMemoryError(env, code, text, fault.error);
}

/// The bytes of a Uint8Array, shared between threads or not; null if `value` is none, or if its
/// buffer may shrink.
std::uint8_t* LookAtBuffer(napi_env env, napi_value value, std::size_t* length) noexcept {
  bool is_array = false;
  bool is_resizable = false;
  napi_typedarray_type type;
  void* data = nullptr;
  napi_value buffer = nullptr;
  napi_value resizable = nullptr;
  if (napi_is_typedarray(env, value, &is_array) != napi_ok || !is_array ||
      napi_get_typedarray_info(env, value, &type, length, &data, &buffer, nullptr) != napi_ok ||
      type != napi_uint8_array ||
      napi_get_named_property(env, buffer, "resizable", &resizable) != napi_ok) {
    return nullptr;
  }
  // Absent where the buffer is shared, or the engine has none that are resizable.
  napi_get_value_bool(env, resizable, &is_resizable);
  return is_resizable ? nullptr : static_cast<std::uint8_t*>(data);
}

}  // namespace

std::shared_ptr<kernel::GuestMemory> ReadMemory(Arguments& arguments, std::size_t index) {
  const GuestMemory* memory = GuestMemory::From(arguments.env(), arguments.value(index));
  if (memory == nullptr) {
    arguments.WrongType("memory", "a GuestMemory");
    return nullptr;
  }
  if (memory->memory() == nullptr) {
    arguments.Refuse("ERR_MEMORY_CLOSED", "guest memory was closed");
  }
  return memory->memory();
}

std::span<std::uint32_t> ReadPageBitmap(Arguments& arguments, std::size_t index, const char* name,
                                        std::uint64_t page_count) noexcept {
  const std::span<std::uint32_t> words = arguments.LastingUint32s(index, name);
  const std::uint64_t count = (page_count + 31) / 32;
  const std::uint64_t kvm_count = (page_count + 63) / 64 * 2;
  if (!arguments.is_wrong() && words.size() != count && words.size() != kvm_count) {
    arguments.WrongRange("\"%s\" must have a bit per page, %llu or %llu words: has %zu", name,
                         static_cast<unsigned long long>(count),
                         static_cast<unsigned long long>(kvm_count), words.size());
    return {};
  }
  return words;
}

Napi::Function GuestMemory::Define(napi_env env) {
  return DefineClass(env, "GuestMemory",
                     {
                         InstanceMethod<&GuestMemory::Id>("id"),
                         InstanceMethod<&GuestMemory::IsLost>("isLost"),
                         InstanceMethod<&GuestMemory::View>("view"),
                         InstanceMethod<&GuestMemory::FindPopulated>("findPopulated"),
                         InstanceMethod<&GuestMemory::ScanPopulated>("scanPopulated"),
                         InstanceMethod<&GuestMemory::Punch>("punch"),
                         InstanceMethod<&GuestMemory::Dispose>("dispose"),
                     });
}

GuestMemory* GuestMemory::From(napi_env env, napi_value value) noexcept {
  return Untag<GuestMemory>(env, value, kTag);
}

GuestMemory::GuestMemory(const Napi::CallbackInfo& info) : Napi::ObjectWrap<GuestMemory>(info) {
  if (info.Length() <= 2) {
    Attach(info);
  } else {
    Open(info);
  }
  if (held_ != nullptr &&
      napi_type_tag_object(info.Env(), info.This(), &kTag) != napi_ok) {
    ThrowError(info.Env(), nullptr, "Cannot map memory: object cannot be marked");
  }
}

/// names, usedBytes, files, offsets, buffers, isWritable, pageBits
void GuestMemory::Open(const Napi::CallbackInfo& info) {
  napi_env env = info.Env();
  Arguments arguments(info, "map memory");
  const bool is_writable = arguments.Boolean(5, "isWritable");
  const auto page_bits = static_cast<std::uint32_t>(
      arguments.Integer(6, "pageBits", kernel::kPageBitsMin, kernel::kPageBitsMax));
  if (arguments.is_wrong()) {
    return;
  }
  const auto blocks = ReadBlocks(arguments, page_bits);
  std::vector<kernel::BlockSource> sources;
  if (blocks == nullptr || !ReadSources(arguments, blocks->count(), &sources)) {
    return;
  }
  kernel::MemoryFault fault;
  std::shared_ptr<kernel::GuestMemory> memory =
      kernel::GuestMemory::Map(sources, page_bits, is_writable, &fault);
  if (memory == nullptr) {
    const std::size_t other = fault.step == kernel::MemoryStep::kOverlap ? fault.wanted : 0;
    ThrowFault(env, fault, blocks->at(fault.block).name.c_str(), blocks->at(other).name.c_str());
    return;
  }
  views_.resize(sources.size());
  held_ = HoldMemory(std::move(memory));
  id_ = held_->id;
}

bool GuestMemory::ReadSources(Arguments& arguments, std::size_t count,
                              std::vector<kernel::BlockSource>* sources) {
  napi_env env = arguments.env();
  bool is_array = false;
  if (napi_is_array(env, arguments.value(4), &is_array) != napi_ok || !is_array) {
    arguments.WrongType("buffers", "an array");
    return false;
  }
  std::vector<napi_value> buffers(count);
  // This may run script, which may detach arrays: pointers are looked at later.
  for (std::size_t i = 0; i < count; i++) {
    const auto index = static_cast<std::uint32_t>(i);
    if (napi_get_element(env, arguments.value(4), index, &buffers[i]) != napi_ok) {
      return false;
    }
  }
  const std::span<double> used_bytes = arguments.Doubles(1, "usedBytes");
  const std::span<std::int32_t> files = arguments.Int32s(2, "files", count);
  const std::span<double> offsets = arguments.Doubles(3, "offsets");
  arguments.Require(count > 0, "there must be a block");
  arguments.Require(used_bytes.size() == count && offsets.size() == count,
                    "columns must have as many elements as there are names");
  buffers_.resize(count);
  for (std::size_t i = 0; i < count && !arguments.is_wrong(); i++) {
    const double offset = offsets[i];
    const bool is_within = offset >= 0 && offset <= static_cast<double>(kernel::kBlockBytesMax);
    arguments.Require(is_within && offset == std::trunc(offset),
                      "\"offsets\" must be integers from 0 to 2^52");
    kernel::BlockSource source{nullptr, files[i], 0, static_cast<std::uint64_t>(used_bytes[i])};
    if (files[i] < 0) {
      source.buffer = KeepBuffer(arguments, i, buffers[i], source.byte_count);
    } else if (is_within) {
      source.file_offset = static_cast<std::uint64_t>(offset);
    }
    sources->push_back(source);
  }
  return !arguments.is_wrong();
}

/// The bytes of the buffer of a block; null, with an exception on its way, if it is not as it
/// should be.
std::uint8_t* GuestMemory::KeepBuffer(Arguments& arguments, std::size_t block, napi_value buffer,
                                      std::uint64_t byte_count) {
  std::size_t length = 0;
  std::uint8_t* bytes = LookAtBuffer(arguments.env(), buffer, &length);
  if (bytes == nullptr || length != byte_count) {
    arguments.WrongType("buffers", "Uint8Arrays of fixed length, as long as their blocks");
    return nullptr;
  }
  buffers_[block] =
      Napi::Reference<Napi::Value>::New(Napi::Value(arguments.env(), buffer), 1);
  return bytes;
}

/// id, buffers
void GuestMemory::Attach(const Napi::CallbackInfo& info) {
  napi_env env = info.Env();
  Arguments arguments(info, "attach memory");
  id_ = static_cast<std::uint64_t>(
      arguments.Integer(0, "id", 1, (std::int64_t{1} << 53) - 1));
  if (!info[1].IsArray()) {
    arguments.WrongType("buffers", "an array");
  }
  if (arguments.is_wrong()) {
    return;
  }
  std::shared_ptr<const HeldMemory> held = FindMemory(id_);
  if (held == nullptr) {
    ThrowMemoryError(env, "ERR_MEMORY_CLOSED",
                     "Cannot attach memory: nobody in this process holds it", 0);
    return;
  }
  const kernel::GuestMemory& memory = *held->memory;
  buffers_.resize(memory.block_count());
  views_.resize(memory.block_count());
  for (std::size_t i = 0; i < memory.block_count(); i++) {
    const kernel::MemoryBlock& block = memory.block(i);
    napi_value buffer = nullptr;
    if (block.file >= 0) {
      continue;
    }
    if (napi_get_element(env, info[1], static_cast<std::uint32_t>(i), &buffer) != napi_ok) {
      return;
    }
    const std::uint8_t* bytes = KeepBuffer(arguments, i, buffer, block.byte_count);
    if (bytes != block.bytes) {
      arguments.WrongType("buffers", "those that the memory was made of, shared");
    }
    if (arguments.is_wrong()) {
      return;
    }
  }
  held_ = std::move(held);
}

kernel::GuestMemory* GuestMemory::Opened(napi_env env, const char* task) const noexcept {
  if (held_ == nullptr) {
    char text[kMessageBytes];
    std::snprintf(text, sizeof text, "Cannot %s: memory is closed", task);
    ThrowMemoryError(env, "ERR_MEMORY_CLOSED", text, 0);
  }
  return held_ == nullptr ? nullptr : held_->memory.get();
}

std::size_t GuestMemory::ReadBlock(Arguments& arguments, std::size_t index) const noexcept {
  return static_cast<std::size_t>(arguments.Integer(
      index, "block", 0, static_cast<std::int64_t>(held_->memory->block_count()) - 1));
}

Napi::Value GuestMemory::Id(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(id_));
}

Napi::Value GuestMemory::IsLost(const Napi::CallbackInfo& info) {
  const kernel::GuestMemory* memory = Opened(info.Env(), "look at memory");
  if (memory == nullptr) {
    return info.Env().Undefined();
  }
  memory->LookForLoss();
  return Napi::Boolean::New(info.Env(), memory->is_lost());
}

Napi::Value GuestMemory::View(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  Arguments arguments(info, "view memory");
  if (Opened(env, "view memory") == nullptr) {
    return env.Undefined();
  }
  const std::size_t block = ReadBlock(arguments, 0);
  if (arguments.is_wrong()) {
    return env.Undefined();
  }
  if (!buffers_[block].IsEmpty()) {
    return buffers_[block].Value();
  }
  if (views_[block].IsEmpty()) {
    const napi_value view = MakeMemoryView(env, held_->memory, block);
    if (view == nullptr) {
      return env.Undefined();
    }
    views_[block] = Napi::Reference<Napi::Value>::New(Napi::Value(env, view), 1);
  }
  return views_[block].Value();
}

bool GuestMemory::ReadPopulated(const Napi::CallbackInfo& info, std::size_t* block,
                                std::span<std::uint32_t>* words) const {
  Arguments arguments(info, "find populated pages");
  const kernel::GuestMemory* memory = Opened(info.Env(), "find populated pages");
  if (memory == nullptr) {
    return false;
  }
  *block = ReadBlock(arguments, 0);
  if (arguments.is_wrong()) {
    return false;
  }
  *words = ReadPageBitmap(arguments, 1, "words", memory->PageCount(*block));
  return !arguments.is_wrong();
}

Napi::Value GuestMemory::FindPopulated(const Napi::CallbackInfo& info) {
  std::size_t block = 0;
  std::span<std::uint32_t> words;
  if (!ReadPopulated(info, &block, &words)) {
    return info.Env().Undefined();
  }
  const int error = kernel::FindPopulated(*held_->memory, block, words);
  if (error != 0) {
    ThrowMemoryError(info.Env(), "ERR_MEMORY_OPEN",
                     "Cannot find populated pages: the file cannot be read", error);
  }
  return info.Env().Undefined();
}

Napi::Value GuestMemory::ScanPopulated(const Napi::CallbackInfo& info) {
  std::size_t block = 0;
  std::span<std::uint32_t> words;
  if (!ReadPopulated(info, &block, &words)) {
    return info.Env().Undefined();
  }
  const std::shared_ptr<kernel::GuestMemory>& memory = held_->memory;
  return LaunchPiece(
      info, {"ERR_MEMORY_OPEN", "Cannot find populated pages: the file cannot be read"},
      [memory, block, words] { return kernel::FindPopulated(*memory, block, words); });
}

Napi::Value GuestMemory::Punch(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  Arguments arguments(info, "punch pages");
  const kernel::GuestMemory* memory = Opened(env, "punch pages");
  if (memory == nullptr) {
    return env.Undefined();
  }
  const std::size_t block = ReadBlock(arguments, 0);
  const auto first_page =
      static_cast<std::uint64_t>(arguments.Integer(1, "firstPage", 0, kPagesMax));
  const auto page_count =
      static_cast<std::uint64_t>(arguments.Integer(2, "pageCount", 0, kPagesMax));
  if (arguments.is_wrong()) {
    return env.Undefined();
  }
  arguments.Require(first_page + page_count <= memory->PageCount(block),
                    "pages must be of the block");
  if (arguments.is_wrong()) {
    return env.Undefined();
  }
  if (!memory->block(block).is_writable) {
    ThrowMemoryError(env, "ERR_MEMORY_READ_ONLY",
                     "Cannot punch pages: memory is mapped for reading", 0);
    return env.Undefined();
  }
  if (const int error = kernel::PunchPages(*memory, block, first_page, page_count); error != 0) {
    ThrowMemoryError(env, "ERR_MEMORY_PUNCH", "Cannot punch pages: the system refuses it", error);
  }
  return env.Undefined();
}

/// Buffers are kept until the object is let go of: tasks that pin it may be at work on them.
Napi::Value GuestMemory::Dispose(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  for (Napi::Reference<Napi::Value>& view : views_) {
    if (!view.IsEmpty()) {
      DetachView(env, view.Value());
      view.Reset();
    }
  }
  held_.reset();
  return env.Undefined();
}

/// name, bytes, hugePageBytes
Napi::Value CreateMemoryFile(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  Arguments arguments(info, "create memory file");
  const auto byte_count = arguments.Integer(1, "bytes", 0, kernel::kBlockBytesMax);
  const auto huge_bytes =
      static_cast<std::uint64_t>(arguments.Integer(2, "hugePageBytes", 0, INT64_C(1) << 40));
  arguments.Require(huge_bytes == 0 || std::has_single_bit(huge_bytes),
                    "\"hugePageBytes\" must be a power of two, or 0");
  if (!info[0].IsString()) {
    arguments.WrongType("name", "a string");
  }
  if (arguments.is_wrong()) {
    return env.Undefined();
  }
  const std::string name = info[0].As<Napi::String>().Utf8Value();
  unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
  if (huge_bytes != 0) {
    flags |= MFD_HUGETLB | (static_cast<unsigned>(std::countr_zero(huge_bytes)) << kHugePageShift);
  }
  const int file = memfd_create(name.c_str(), flags);
  if (file < 0 || ftruncate(file, byte_count) != 0) {
    const int error = errno;
    if (file >= 0) {
      close(file);
    }
    ThrowMemoryError(env, "ERR_MEMORY_CREATE",
                     "Cannot create memory file: the system refuses it", error);
    return env.Undefined();
  }
  return Napi::Number::New(env, file);
}

}  // namespace pagelane::binding
