#include "binding/hashes.h"

#include <cerrno>
#include <climits>
#include <new>
#include <utility>

#include "binding/arguments.h"
#include "binding/blocks.h"
#include "binding/instance.h"
#include "binding/tags.h"
#include "kernel/limits.h"

namespace pagelane::binding {

namespace {

/// Marks objects made by the constructor, so that no other object is taken for one.
constexpr napi_type_tag kTag = {0x43be7d160fa8592c, 0xa91d5e07c26b83f4};

/* Fixed by src/native.ts: Compared */
constexpr std::size_t kComparedCount = 5;

class CompareTask final : public Task {
 public:
  CompareTask(Instance& instance, std::shared_ptr<kernel::PageHashes> hashes, int file,
              std::size_t block, std::uint64_t first_page, std::uint64_t page_count) noexcept
      : Task(instance),
        hashes_(std::move(hashes)),
        file_(file),
        block_(block),
        first_page_(first_page),
        page_count_(page_count) {}

 private:
  void Work(kernel::Scratch& scratch) noexcept override {
    kernel::DecodeRoom* room = scratch.Decoding();
    if (room == nullptr) {
      comparison_.error = ENOMEM;
      return;
    }
    comparison_ = kernel::CompareFile(*hashes_, file_, block_, first_page_, page_count_,
                                      room->literals);
  }

  napi_value Result(napi_env env) noexcept override {
    void* data = nullptr;
    std::size_t length = 0;
    // The script may have detached it meanwhile; it then gets nothing.
    if (LookAtArray(env, pinned(env, 0), napi_float64_array, &data, &length) &&
        length >= kComparedCount) {
      auto* compared = static_cast<double*>(data);
      compared[0] = static_cast<double>(comparison_.pages);
      compared[1] = static_cast<double>(comparison_.differing);
      compared[2] = static_cast<double>(comparison_.unknown);
      compared[3] = static_cast<double>(comparison_.first_differing);
      compared[4] = comparison_.error;
    }
    return nullptr;
  }

  const std::shared_ptr<kernel::PageHashes> hashes_;
  const int file_;
  const std::size_t block_;
  const std::uint64_t first_page_;
  const std::uint64_t page_count_;
  kernel::Comparison comparison_;
};

}  // namespace

Napi::Function PageHashes::Define(napi_env env) {
  return DefineClass(env, "PageHashes", {});
}

PageHashes* PageHashes::From(napi_env env, napi_value value) noexcept {
  return Untag<PageHashes>(env, value, kTag);
}

PageHashes::PageHashes(const Napi::CallbackInfo& info) : Napi::ObjectWrap<PageHashes>(info) {
  Arguments arguments(info, "make page hashes");
  // Names and sizes of the blocks come first, as everywhere.
  const auto page_bits = static_cast<std::uint32_t>(
      arguments.Integer(2, "pageBits", kernel::kPageBitsMin, kernel::kPageBitsMax));
  if (arguments.is_wrong()) {
    return;
  }
  const auto blocks = ReadBlocks(arguments, page_bits);
  if (blocks == nullptr) {
    return;
  }
  hashes_ = std::make_shared<kernel::PageHashes>(*blocks);
  if (!hashes_->is_usable()) {
    ThrowError(info.Env(), "ERR_OUT_OF_MEMORY", "Cannot make page hashes: out of memory");
    return;
  }
  if (napi_type_tag_object(info.Env(), info.This(), &kTag) != napi_ok) {
    ThrowError(info.Env(), nullptr, "Cannot make page hashes: object cannot be marked");
  }
}

Napi::Value ComparePages(const Napi::CallbackInfo& info) {
  constexpr std::int64_t kPagesMax = kernel::kBlockBytesMax >> kernel::kPageBitsMin;
  napi_env env = info.Env();
  Arguments arguments(info, "compare pages");
  const PageHashes* hashes = PageHashes::From(env, info[0]);
  if (hashes == nullptr) {
    arguments.WrongType("hashes", "a PageHashes");
  }
  const auto file = static_cast<int>(arguments.Integer(1, "file", 0, INT_MAX));
  const auto block = static_cast<std::size_t>(
      arguments.Integer(2, "block", 0, static_cast<std::int64_t>(kernel::kBlocksMax) - 1));
  const auto first_page =
      static_cast<std::uint64_t>(arguments.Integer(3, "firstPage", 0, kPagesMax));
  const auto page_count =
      static_cast<std::uint64_t>(arguments.Integer(4, "pageCount", 1, kPagesMax));
  const std::span<double> compared = arguments.Doubles(5, "compared");
  if (!arguments.is_wrong()) {
    arguments.Require(hashes->hashes()->Has(block, first_page + page_count - 1),
                      "pages must be of the block");
    arguments.Require(compared.size() >= kComparedCount, "\"compared\" must have 5 elements");
  }
  if (arguments.is_wrong()) {
    return info.Env().Undefined();
  }
  auto* task = new (std::nothrow)
      CompareTask(Instance::Of(env), hashes->hashes(), file, block, first_page, page_count);
  return PinAndLaunch(info, task, {5});
}

}  // namespace pagelane::binding
