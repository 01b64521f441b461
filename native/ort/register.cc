// RegisterCustomOps: makes this library an ordinary custom-operator library of ONNX Runtime.
//
// Python: SessionOptions.register_custom_ops_library(path); C: RegisterCustomOpsLibrary_V2; others alike.
#include <mutex>
#include <utility>
#include <vector>

#include "binary_conv/moves.h"
#include "binary_conv/operator.h"
#include "gossamer.h"
#include "ort/kernel.h"
#include "sparse_gemv/operator.h"
#include "ternary_conv/operator.h"
#include "ternary_gemm/operator.h"
#include "ternary_int8/operator.h"

namespace gossamer::ort {
namespace {

constexpr const char* kDomain = "ai.gossamer";
// Two copies of ONNX Runtime may live in one process; each gets a domain made by its own functions. A domain must
// outlive every session that uses it, so it is never released.
std::mutex mutex;
std::vector<std::pair<const Table*, Domain*>> domains;

Status* domain_of(const Api& api, Domain** out) {
  for (const auto& [table, domain] : domains) {
    if (table != api.table()) continue;
    *out = domain;
    return nullptr;
  }
  domains.reserve(domains.size() + 1);
  if (Status* status = api.create_domain(kDomain, out)) return status;
  if (Status* status = api.add_operator(*out, custom_op<sparse::SparseGemm>())) return status;
  if (Status* status = api.add_operator(*out, custom_op<binary::BinaryConv>())) return status;
  if (Status* status = api.add_operator(*out, custom_op<binary::BinaryConvSign>())) return status;
  if (Status* status = api.add_operator(*out, custom_op<binary::BinarySign>())) return status;
  if (Status* status = api.add_operator(*out, custom_op<binary::BinaryMaxPool>())) return status;
  if (Status* status = api.add_operator(*out, custom_op<binary::BinaryFloats>())) return status;
  if (Status* status = api.add_operator(*out, custom_op<ternary::TernaryGemm>())) return status;
  if (Status* status = api.add_operator(*out, custom_op<ternary::TernaryConv>())) return status;
  if (Status* status = api.add_operator(*out, custom_op<ternary_int8::TernaryGemmInt8>())) return status;
  if (Status* status = api.add_operator(*out, custom_op<ternary_int8::TernaryConvInt8>())) return status;
  domains.emplace_back(api.table(), *out);
  return nullptr;
}

}  // namespace
}  // namespace gossamer::ort

// The runtime calls this with its own table of functions; what it cannot serve is an error before any session exists.
extern "C" GOSSAMER_API gossamer::ort::Status* GOSSAMER_ORT_CALL
RegisterCustomOps(gossamer::ort::SessionOptions* options, const gossamer::ort::ApiBase* base) {
  using namespace gossamer::ort;
  const Table* table = base->get_api(kApiVersion);
  if (!table) {
    // entry 0 makes a status in every version; version 1 is served by all
    const Api oldest(base->get_api(1));
    return oldest.create_status(Code::fail, "ai.gossamer: needs ONNX Runtime 1.17 or newer; this one is older");
  }
  const Api api(table);
  Status* status = nullptr;
  Status* failed = answered(api, kDomain, [&] {
    const std::lock_guard<std::mutex> lock(mutex);
    Domain* domain = nullptr;
    status = domain_of(api, &domain);
    if (!status) status = api.add_domain(options, domain);
  });
  return failed ? failed : status;
}
