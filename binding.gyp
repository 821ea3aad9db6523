{
  "targets": [
    {
      "target_name": "pagelane",
      "sources": [
        "native/addon.cc",
        "<!@(ls native/kernel/*.cc native/binding/*.cc)"
      ],
      "include_dirs": ["native", "<!(node -p \"require('node-addon-api').include_dir\")"],
      "defines": ["NAPI_VERSION=9", "NAPI_DISABLE_CPP_EXCEPTIONS", "NODE_ADDON_API_DISABLE_DEPRECATED", "NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS", "XXH_INLINE_ALL"],
      "cflags_cc": ["-std=c++20", "-Wall", "-Wextra", "-fvisibility=hidden", "-fno-exceptions"],
      "cflags_cc!": ["-std=gnu++17", "-std=gnu++20"],
      "ldflags": ["-Wl,--exclude-libs,ALL", "-Wl,-z,now", "-Wl,-z,nodelete"],
      "libraries": ["-Wl,-Bstatic", "-llz4", "-lzstd", "-Wl,-Bdynamic", "-lpthread"],
      "configurations": {
        "Release": { "defines": ["NDEBUG"], "cflags_cc": ["-O3"] },
        "Debug": { "cflags_cc": ["-O0"] }
      }
    }
  ]
}
