# What building the kernels for another architecture, and running them here, needs.

setup_cross() {
  want g++ "compiles the tests of the kernels" command -v g++
  want libxxhash-dev "XXH3, compiled into the kernels" has_header xxhash.h
  [ "$(uname -m)" = x86_64 ] || {
    install_wanted
    return
  }
  want g++-aarch64-linux-gnu "compiles the kernels for NEON" command -v aarch64-linux-gnu-g++
  want libc6-dev-arm64-cross "links the kernels for NEON" \
    test -e /usr/aarch64-linux-gnu/include/stdio.h
  want qemu-user-static "runs the kernels for NEON" command -v qemu-aarch64-static
  install_wanted
}
