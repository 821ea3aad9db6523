# What fuzzing and sanitizers need, and the targets there are. Needs common.sh.

fuzz_folder="$root/.build/fuzz"

setup_fuzz() {
  want clang "compiles fuzz targets: GCC has no libFuzzer" command -v clang++
  want libclang-rt-dev "libFuzzer and clang's sanitizers" has_clang_fuzzer
  want llvm "reads coverage, and puts names into reports" command -v llvm-cov
  want valgrind "runs the addon's tests without a special build" command -v valgrind
  install_wanted
}

has_clang_fuzzer() { [ -e "$(clang++ -print-file-name="libclang_rt.fuzzer-$(uname -m).a")" ] ||
  ls "$(clang++ -print-resource-dir)"/lib/*/libclang_rt.fuzzer*.a; }

fuzz_targets() { (cd "$root/test/fuzz" && ls ./*_fuzz.cc | sed 's|^\./||; s|_fuzz\.cc$||'); }

build_targets() { make -s -j 2 -C "$root" -f test/fuzz/Makefile FLAVOUR="$1"; }

# Longest input: a few records of every kind.
input_bytes_max() {
  case "$1" in
    page_store) echo 4096 ;;
    ram_cutter) echo 8192 ;;
    *) echo 2048 ;;
  esac
}
