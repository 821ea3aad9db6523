# What real guests need: two QEMUs, a kernel, an initramfs, tools for networks.
# Artifacts live under $cache and are found again by test/support/lab/binaries.ts.

guest_sources="$root/test/support/lab/guest"

setup_lab() {
  want qemu-system-x86 "runs the guests" command -v qemu-system-x86_64
  want gcc "compiles the guest's workload" command -v gcc
  want libc6-dev "links the guest's workload" test -e /usr/include/stdio.h
  want cpio "packs the guest's root" command -v cpio
  want iproute2 "makes namespaces and paths" command -v ip
  want iperf3 "measures what a path can carry" command -v iperf3
  want lz4 "is compared with" command -v lz4
  want zstd "is compared with" command -v zstd
  want socat "carries what is compared" command -v socat
  want qemu-utils "is compared with" command -v qemu-img
  want redis-server "holds staged pages" command -v redis-server
  want redis-tools "measures Redis" command -v redis-benchmark
  want util-linux "ends processes with the test that started them" command -v setpriv
  install_wanted

  mkdir -p "$cache"
  exec 8<"$cache"
  flock 8
  if [ "$(installed_qemu_major)" -lt 9 ]; then
    build_once "$cache/qemu-backports" \
      "QEMU before 9 loses dirty pages under TCG" unpack_qemu
  fi
  build_once "$cache/vmlinuz" "the guests' kernel" unpack_kernel
  build_once "$cache/workload-$(source_hash "$guest_sources/workload.c").cpio" \
    "a guest that checks its own memory" build_workload
  build_once "$cache/mptcp-$(source_hash "$guest_sources/mptcp.c").so" \
    "makes unmodified programs use MPTCP" build_mptcp
  exec 8<&-
}

installed_qemu_major() {
  qemu-system-x86_64 --version | sed -n 's/^QEMU emulator version \([0-9]*\)\..*/\1/p'
}

unpack_qemu() {
  local suite
  suite="$(debian_codename)-backports"
  unpack_packages "$1" "qemu-system-x86/$suite" "qemu-system-common/$suite" \
    "qemu-system-data/$suite" "seabios/$suite"
}

unpack_kernel() {
  local package
  package="$(private_apt apt-cache depends linux-image-cloud-amd64 |
    awk '$1 == "Depends:" { print $2; exit }')"
  [ -n "$package" ] || fail "no cloud kernel among the packages of $(debian_codename)"
  unpack_packages "$1.tree" "$package"
  mv "$1.tree"/boot/vmlinuz-* "$1"
  rm -rf "$1.tree"
}

build_workload() {
  local tree="$1.tree"
  mkdir -p "$tree/dev" "$tree/proc"
  # No vector instructions: TCG emulates them slowly.
  gcc -static -O2 -fno-tree-vectorize -Wall -Wextra -Werror \
    -o "$tree/init" "$guest_sources/workload.c"
  strip "$tree/init"
  pack_tree "$tree" "$1"
}

pack_tree() {
  (cd "$1" && find . -print0 | cpio --quiet -0 -o -H newc -R 0:0) >"$2"
  rm -rf "$1"
}

build_mptcp() {
  gcc -shared -fPIC -O2 -Wall -Wextra -Werror -o "$1" "$guest_sources/mptcp.c" -ldl
}
