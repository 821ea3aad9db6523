#include <napi.h>

#include "binding/batches.h"
#include "binding/blocks.h"
#include "binding/cutter.h"
#include "binding/instance.h"
#include "binding/kernels.h"

namespace pagelane::binding {

static Napi::Object Init(Napi::Env env, Napi::Object exports) {
  if (!Instance::Start(env)) {
    return exports;
  }
  exports.Set("features", Napi::Function::New<Features>(env, "features"));
  exports.Set("setThreads", Napi::Function::New<SetThreads>(env, "setThreads"));
  exports.Set("findZeroPages", Napi::Function::New<FindZeroPages>(env, "findZeroPages"));
  exports.Set("hash64", Napi::Function::New<Hash64>(env, "hash64"));
  exports.Set("RamCutter", RamCutter::Define(env));
  exports.Set("BlockTable", BlockTable::Define(env));
  exports.Set("encodeBatch", Napi::Function::New<EncodeBatch>(env, "encodeBatch"));
  exports.Set("inspectBatch", Napi::Function::New<InspectBatch>(env, "inspectBatch"));
  exports.Set("decodeBatch", Napi::Function::New<DecodeBatch>(env, "decodeBatch"));
  return exports;
}

NODE_API_MODULE(pagelane, Init)

}  // namespace pagelane::binding
