# What compiling and running pagelane needs.

setup_build() {
  want g++ "compiles the native addon" command -v g++
  want make "builds the native addon" command -v make
  want python3 "node-gyp runs on it" command -v python3
  install_wanted
  want liblz4-dev "LZ4, linked into the native addon" has_header lz4.h
  want libzstd-dev "zstd, linked into the native addon" has_header zstd.h
  want libxxhash-dev "XXH3, compiled into the native addon" has_header xxhash.h
  install_wanted

  exec 9<"$root"
  flock 9
  setup_node_modules
  setup_addon
  exec 9<&-
}

# npm leaves node_modules/.package-lock.json when, and only when, it has finished.
setup_node_modules() {
  local done_mark="$root/node_modules/.package-lock.json"
  [ -e "$done_mark" ] && [ ! "$root/package-lock.json" -nt "$done_mark" ] && return
  say "installing node_modules"
  (cd "$root" && npm ci --no-audit --no-fund --loglevel=error </dev/null >/dev/null)
}

setup_addon() {
  local addon="$root/build/Release/pagelane.node"
  [ -e "$addon" ] &&
    [ -z "$(find "$root/native" "$root/binding.gyp" -type f -newer "$addon" -print -quit)" ] &&
    return
  say "building the native addon"
  # Headers that came with this Node spare node-gyp a download.
  local log prefix
  prefix="$(dirname "$(dirname "$(node -p process.execPath)")")"
  [ ! -e "$prefix/include/node/node_api.h" ] || export npm_config_nodedir="$prefix"
  log="$(mktemp)"
  (cd "$root" && npm run --silent build:native </dev/null >"$log" 2>&1) || {
    cat "$log" >&2
    rm -f "$log"
    fail "the native addon does not build"
  }
  rm -f "$log"
}
