#include <napi.h>

#include "binding/batches.h"
#include "binding/bitmaps.h"
#include "binding/blocks.h"
#include "binding/cutter.h"
#include "binding/dirty_logs.h"
#include "binding/hashes.h"
#include "binding/instance.h"
#include "binding/kernels.h"
#include "binding/memory.h"
#include "binding/memory_batches.h"
#include "binding/sockets.h"
#include "binding/stores.h"
#include "binding/threads.h"

namespace pagelane::binding {

static Napi::Object Init(Napi::Env env, Napi::Object exports) {
  if (!Instance::Start(env)) {
    return exports;
  }
  exports.Set("features", Napi::Function::New<Features>(env, "features"));
  exports.Set("setThreads", Napi::Function::New<SetThreads>(env, "setThreads"));
  exports.Set("usableProcessors",
              Napi::Function::New<UsableProcessors>(env, "usableProcessors"));
  exports.Set("findZeroPages", Napi::Function::New<FindZeroPages>(env, "findZeroPages"));
  exports.Set("isFillPage", Napi::Function::New<IsFillPage>(env, "isFillPage"));
  exports.Set("encodeDelta", Napi::Function::New<EncodeDelta>(env, "encodeDelta"));
  exports.Set("applyDelta", Napi::Function::New<ApplyDelta>(env, "applyDelta"));
  exports.Set("findFeatures", Napi::Function::New<FindFeatures>(env, "findFeatures"));
  exports.Set("hash64", Napi::Function::New<Hash64>(env, "hash64"));
  exports.Set("findRuns", Napi::Function::New<FindRuns>(env, "findRuns"));
  exports.Set("countBits", Napi::Function::New<CountBits>(env, "countBits"));
  exports.Set("findBit", Napi::Function::New<FindBit>(env, "findBit"));
  exports.Set("mergeBits", Napi::Function::New<MergeBits>(env, "mergeBits"));
  exports.Set("takeBits", Napi::Function::New<TakeBits>(env, "takeBits"));
  exports.Set("refuseMore", Napi::Function::New<RefuseMore>(env, "refuseMore"));
  exports.Set("RamCutter", RamCutter::Define(env));
  exports.Set("BlockTable", BlockTable::Define(env));
  exports.Set("PageStore", PageStore::Define(env));
  exports.Set("StoreIndex", StoreIndex::Define(env));
  exports.Set("PageHashes", PageHashes::Define(env));
  exports.Set("encodeBatch", Napi::Function::New<EncodeBatch>(env, "encodeBatch"));
  exports.Set("inspectBatch", Napi::Function::New<InspectBatch>(env, "inspectBatch"));
  exports.Set("decodeBatch", Napi::Function::New<DecodeBatch>(env, "decodeBatch"));
  exports.Set("comparePages", Napi::Function::New<ComparePages>(env, "comparePages"));
  exports.Set("MemoryTarget", MemoryTarget::Define(env));
  exports.Set("encodePages", Napi::Function::New<EncodePages>(env, "encodePages"));
  exports.Set("hashPages", Napi::Function::New<HashPages>(env, "hashPages"));
  exports.Set("applyBatch", Napi::Function::New<ApplyBatch>(env, "applyBatch"));
  exports.Set("GuestMemory", GuestMemory::Define(env));
  exports.Set("WriteTracker", WriteTracker::Define(env));
  exports.Set("PageDigests", PageDigests::Define(env));
  exports.Set("createMemoryFile",
              Napi::Function::New<CreateMemoryFile>(env, "createMemoryFile"));
  return exports;
}

NODE_API_MODULE(pagelane, Init)

}  // namespace pagelane::binding
