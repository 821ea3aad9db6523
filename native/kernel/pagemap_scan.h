#pragma once

#include <sys/ioctl.h>

#include <cstdint>

/*
 * What the kernel calls these is in linux/fs.h and linux/userfaultfd.h from Linux 6.7 on; headers
 * of distributions are often older than the kernel they run on. Source: Linux 6.7,
 * include/uapi/linux/fs.h and include/uapi/linux/userfaultfd.h.
 */
namespace pagelane::kernel {

/// struct page_region
struct PageRegion {
  std::uint64_t start;
  std::uint64_t end;
  std::uint64_t categories;
};

/// struct pm_scan_arg
struct PagemapScan {
  std::uint64_t size;
  std::uint64_t flags;
  std::uint64_t start;
  std::uint64_t end;
  std::uint64_t walk_end;
  std::uint64_t vec;
  std::uint64_t vec_len;
  std::uint64_t max_pages;
  std::uint64_t category_inverted;
  std::uint64_t category_mask;
  std::uint64_t category_anyof_mask;
  std::uint64_t return_mask;
};
static_assert(sizeof(PageRegion) == 24 && sizeof(PagemapScan) == 96);

/// PAGEMAP_SCAN
inline constexpr unsigned long kPagemapScan = _IOWR('f', 16, PagemapScan);
/// PM_SCAN_WP_MATCHING, PM_SCAN_CHECK_WPASYNC
inline constexpr std::uint64_t kScanProtectMatching = 1 << 0;
inline constexpr std::uint64_t kScanCheckAsync = 1 << 1;
/// PAGE_IS_WRITTEN
inline constexpr std::uint64_t kPageIsWritten = 1 << 1;

/// UFFD_FEATURE_WP_UNPOPULATED, UFFD_FEATURE_WP_ASYNC
inline constexpr std::uint64_t kFeatureWpUnpopulated = 1 << 13;
inline constexpr std::uint64_t kFeatureWpAsync = 1 << 15;

}  // namespace pagelane::kernel
