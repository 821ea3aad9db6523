#include "binding/dirty_logs.h"

#include <cerrno>
#include <cstdio>
#include <utility>

#include "binding/arguments.h"
#include "binding/memory.h"
#include "binding/page_pieces.h"
#include "binding/tags.h"
#include "kernel/limits.h"

namespace pagelane::binding {

namespace {

/// Marks objects made by the constructor, so that no other object is taken for one.
constexpr napi_type_tag kDigestsTag = {0x8f20d6b35ca7e419, 0x16ebc4970a58f23d};

constexpr std::size_t kMessageBytes = 256;
constexpr const char* kFailed = "ERR_DIRTY_LOG_FAILED";

const char* ReasonOf(const kernel::TrackerFault& fault) noexcept {
  switch (fault.step) {
    case kernel::TrackerStep::kBuffer:
      return "a block is a buffer, and no mapped file";
    case kernel::TrackerStep::kReadOnly:
      return "memory is mapped for reading, so nobody writes through it";
    case kernel::TrackerStep::kOpen:
      return fault.error == ENOSYS ? "the kernel has no userfaultfd"
             : fault.error == EPERM || fault.error == EACCES
                 ? "this process has no right to userfaultfd"
                 : "userfaultfd is refused";
    case kernel::TrackerStep::kFeatures:
      return "the kernel protects no pages asynchronously (Linux 6.7 does)";
    case kernel::TrackerStep::kRegister:
      return fault.error == EBUSY ? "another userfaultfd watches this memory"
                                  : "the kernel protects no pages of such a file";
    default:
      return fault.error == ENOTTY || fault.error == EINVAL
                 ? "the kernel cannot scan for written pages (Linux 6.7 can)"
                 : "/proc/self/pagemap cannot be scanned";
  }
}

void ThrowStopped(napi_env env) noexcept {
  ThrowError(env, "ERR_DIRTY_LOG_STOPPED", "Cannot use dirty log: it is not started");
}

}  // namespace

Napi::Function WriteTracker::Define(napi_env env) {
  return DefineClass(env, "WriteTracker",
                     {
                         InstanceMethod<&WriteTracker::Protect>("protect"),
                         InstanceMethod<&WriteTracker::Collect>("collect"),
                         InstanceMethod<&WriteTracker::Stop>("stop"),
                     });
}

WriteTracker::WriteTracker(const Napi::CallbackInfo& info)
    : Napi::ObjectWrap<WriteTracker>(info) {
  Arguments arguments(info, "track writes");
  std::shared_ptr<kernel::GuestMemory> memory = ReadMemory(arguments, 0);
  if (memory == nullptr) {
    return;
  }
  kernel::TrackerFault fault;
  tracker_ = kernel::WriteTracker::Make(std::move(memory), &fault);
  if (tracker_ == nullptr) {
    char text[kMessageBytes];
    std::snprintf(text, sizeof text, "Cannot track writes: %s", ReasonOf(fault));
    napi_throw(info.Env(), MakeSystemError(info.Env(), "ERR_DIRTY_LOG_UNSUPPORTED", text,
                                           fault.error));
  }
}

Napi::Value WriteTracker::Protect(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "protect pages");
  if (tracker_ == nullptr) {
    ThrowStopped(info.Env());
    return info.Env().Undefined();
  }
  const PagePiece piece = ReadPiece(arguments, tracker_->memory(), true);
  if (arguments.is_wrong()) {
    return info.Env().Undefined();
  }
  return LaunchPiece(info, {kFailed, "Cannot protect pages: the system refuses it"},
                     [tracker = tracker_, piece] {
                       return tracker->Protect(piece.block, piece.first_page, piece.page_count);
                     });
}

Napi::Value WriteTracker::Collect(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "collect writes");
  if (tracker_ == nullptr) {
    ThrowStopped(info.Env());
    return info.Env().Undefined();
  }
  const PagePiece piece = ReadPiece(arguments, tracker_->memory(), true);
  if (arguments.is_wrong()) {
    return info.Env().Undefined();
  }
  const std::span<std::uint32_t> words =
      ReadPageBitmap(arguments, 3, "words", tracker_->memory().PageCount(piece.block));
  if (arguments.is_wrong()) {
    return info.Env().Undefined();
  }
  return LaunchPiece(info, {kFailed, "Cannot collect writes: the system refuses it"},
                     [tracker = tracker_, piece, words] {
                       return tracker->Collect(piece.block, piece.first_page, piece.page_count,
                                               words);
                     });
}

Napi::Value WriteTracker::Stop(const Napi::CallbackInfo& info) {
  tracker_.reset();
  return info.Env().Undefined();
}

Napi::Function PageDigests::Define(napi_env env) {
  return DefineClass(env, "PageDigests",
                     {
                         InstanceMethod<&PageDigests::Note>("note"),
                         InstanceMethod<&PageDigests::Compare>("compare"),
                     });
}

PageDigests* PageDigests::From(napi_env env, napi_value value) noexcept {
  return Untag<PageDigests>(env, value, kDigestsTag);
}

PageDigests::PageDigests(const Napi::CallbackInfo& info) : Napi::ObjectWrap<PageDigests>(info) {
  Arguments arguments(info, "make page digests");
  std::shared_ptr<kernel::GuestMemory> memory = ReadMemory(arguments, 0);
  if (memory == nullptr) {
    return;
  }
  digests_ = kernel::PageDigests::Make(std::move(memory));
  if (digests_ == nullptr) {
    ThrowError(info.Env(), "ERR_OUT_OF_MEMORY", "Cannot make page digests: out of memory");
    return;
  }
  memory_ = Napi::Persistent(info[0].As<Napi::Object>());
  if (napi_type_tag_object(info.Env(), info.This(), &kDigestsTag) != napi_ok) {
    ThrowError(info.Env(), nullptr, "Cannot make page digests: object cannot be marked");
  }
}

/// block, firstPage, copies
Napi::Value PageDigests::Note(const Napi::CallbackInfo& info) {
  constexpr std::int64_t kPagesMax = kernel::kBlockBytesMax >> kernel::kPageBitsMin;
  const kernel::GuestMemory& memory = digests_->memory();
  Arguments arguments(info, "note pages");
  const auto block = static_cast<std::size_t>(
      arguments.Integer(0, "block", 0, static_cast<std::int64_t>(memory.block_count()) - 1));
  const auto first_page =
      static_cast<std::uint64_t>(arguments.Integer(1, "firstPage", 0, kPagesMax));
  const std::span<std::uint8_t> copies = arguments.Bytes(2, "copies");
  if (arguments.is_wrong()) {
    return info.Env().Undefined();
  }
  const std::uint64_t page_count = copies.size() >> memory.page_bits();
  arguments.Require(copies.size() % memory.page_bytes() == 0, "\"copies\" must be whole pages");
  arguments.Require(first_page + page_count <= memory.PageCount(block),
                    "pages must be of the block");
  if (arguments.is_wrong()) {
    return info.Env().Undefined();
  }
  for (std::uint64_t i = 0; i < page_count; i++) {
    digests_->Note(block, first_page + i, copies.data() + (i << memory.page_bits()));
  }
  return info.Env().Undefined();
}

/// block, firstPage, pageCount, populated, words
Napi::Value PageDigests::Compare(const Napi::CallbackInfo& info) {
  const kernel::GuestMemory& memory = digests_->memory();
  Arguments arguments(info, "compare pages");
  const PagePiece piece = ReadPiece(arguments, memory, false);
  if (arguments.is_wrong()) {
    return info.Env().Undefined();
  }
  const std::uint64_t page_count = memory.PageCount(piece.block);
  const std::span<const std::uint32_t> populated =
      ReadPageBitmap(arguments, 3, "populated", page_count);
  const std::span<std::uint32_t> words = ReadPageBitmap(arguments, 4, "words", page_count);
  if (arguments.is_wrong()) {
    return info.Env().Undefined();
  }
  return LaunchPiece(info, {kFailed, "Cannot compare pages: the system refuses it"},
                     [digests = digests_, piece, populated, words] {
                       digests->Compare(piece.block, piece.first_page, piece.page_count,
                                        populated, words);
                       return 0;
                     });
}

}  // namespace pagelane::binding
