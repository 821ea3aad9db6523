# A guest with a Debian in its memory, which compiles or serves Redis; and programs the
# benchmarks compare with.

setup_bench() {
  want debootstrap "makes the realistic guest's root" command -v debootstrap
  install_wanted

  mkdir -p "$cache"
  exec 8<"$cache"
  flock 8
  build_once "$cache/realistic-$(source_hash "$guest_sources/realistic-init.sh").cpio" \
    "a guest that compiles or serves Redis (takes a minute or two)" build_realistic
  exec 8<&-
}

# Left uncompressed: unpacking is slow under TCG.
build_realistic() {
  [ "$(id -u)" = 0 ] || fail "not root: debootstrap needs it to make the realistic guest"
  local tree="$1.tree" log="$1.log.tmp"
  debootstrap --variant=minbase \
    --include=gcc,libc6-dev,redis-server,redis-tools,python3-minimal,iproute2,mawk \
    "$(debian_codename)" "$tree" "$(debian_mirror)" </dev/null >"$log" 2>&1 || {
    tail -n 20 "$log" >&2
    fail "debootstrap failed"
  }
  rm -rf "$log" "$tree"/var/cache/apt "$tree"/var/lib/apt/lists "$tree"/var/log/*.log \
    "$tree"/usr/share/{doc,man,info,locale,zoneinfo,i18n,perl} "$tree"/usr/lib/*/gconv \
    "$tree"/usr/lib/gcc/*/*/lto1 "$tree"/usr/lib/*/lib{a,l,t,hwa}san.* "$tree"/dev/*
  install -m 755 "$guest_sources/realistic-init.sh" "$tree/init"
  pack_tree "$tree" "$1"
}
