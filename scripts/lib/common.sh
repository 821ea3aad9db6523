# Shared by the scripts of this folder; sourced, never run.
#
#   say, fail      one line to stderr
#   want           names a package this machine lacks, and why it is needed
#   install_wanted installs what `want` gathered, or says what to install
#   build_once     makes an artifact under a temporary name, then renames it

set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
cache="${PAGELANE_LAB:-${XDG_CACHE_HOME:-$HOME/.cache}/pagelane-lab}"
wanted=()

say() { echo "setup: $*" >&2; }

fail() {
  echo "setup: error: $*" >&2
  exit 1
}

# want PACKAGE REASON TEST...: remembers PACKAGE unless the command TEST succeeds.
want() {
  local package=$1 reason=$2
  shift 2
  "$@" >/dev/null 2>&1 && return
  wanted+=("$package")
  say "$package is missing: $reason"
}

has_header() { echo "#include <$1>" | g++ -E -x c++ - ; }

install_wanted() {
  [ "${#wanted[@]}" -gt 0 ] || return 0
  command -v apt-get >/dev/null || fail "install these first: ${wanted[*]}"
  [ "$(id -u)" = 0 ] || fail "not root: run 'apt-get install ${wanted[*]}' first"
  local install=(apt-get -qq -o DPkg::Lock::Timeout=600 -o Dpkg::Use-Pty=0
    install -y --no-install-recommends "${wanted[@]}")
  export DEBIAN_FRONTEND=noninteractive
  # The package lists may be absent or out of date: fetch them when they do not serve.
  "${install[@]}" </dev/null >/dev/null 2>&1 || {
    apt-get -qq -o DPkg::Lock::Timeout=600 update </dev/null >&2
    "${install[@]}" </dev/null >&2
  }
  wanted=()
}

# build_once PATH REASON FUNCTION: runs `FUNCTION TEMPORARY_PATH` unless PATH exists.
build_once() {
  local path=$1 reason=$2 function=$3
  [ -e "$path" ] && return
  say "building $(basename "$path"): $reason"
  local temporary="$path.$$.tmp"
  rm -rf "$path".*.tmp
  "$function" "$temporary"
  mv -T "$temporary" "$path"
}

# First 12 hexadecimal digits of the SHA-256 of the files: part of an artifact's name, so
# that clones with different sources share one cache. binaries.ts computes the same.
source_hash() { cat "$@" | sha256sum | cut -c1-12; }
