// What custom operators use of ONNX Runtime's C interface, declared without its headers.
//
// OrtApi is a table of functions whose order never changes, so a function is its index. OrtCustomOp is a struct of
// callbacks that only grows; every member that a current runtime may read is here, null where it is optional.
// Source: onnxruntime_c_api.h of ONNX Runtime 1.17 to 1.29 (the indices are those of all of them).
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(_WIN32)
#define GOSSAMER_ORT_CALL __stdcall
#else
#define GOSSAMER_ORT_CALL
#endif

namespace gossamer::ort {

constexpr uint32_t kApiVersion = 17;  // the first with ParallelFor; every later runtime still serves it

struct Status;
struct Domain;
struct SessionOptions;
struct KernelInfo;
struct KernelContext;
struct Value;
struct TensorInfo;

enum class Code : int { fail = 1, invalid_argument = 2 };
enum class Element : int { any = 0, float32 = 1, uint8 = 2, int8 = 3, uint16 = 4, int32 = 6, int64 = 7 };  // any: of an input
enum class Presence : int { required = 0, optional = 1 };

using Table = const void*;  // OrtApi: an array of function pointers

struct ApiBase {
  const Table*(GOSSAMER_ORT_CALL* get_api)(uint32_t version);
  const char*(GOSSAMER_ORT_CALL* version_text)();
};

class Api {
 public:
  explicit Api(const Table* table) : table_(table) {}
  const Table* table() const { return table_; }

  Status* create_status(Code code, const char* text) const { return call<0, Status*>(code, text); }
  Status* create_domain(const char* name, Domain** out) const { return call<26, Status*>(name, out); }
  Status* add_operator(Domain* domain, const struct CustomOp* op) const { return call<27, Status*>(domain, op); }
  Status* add_domain(SessionOptions* options, Domain* domain) const { return call<28, Status*>(options, domain); }
  Status* data(Value* value, void** out) const { return call<51, Status*>(value, out); }
  Status* element(const TensorInfo* info, Element* out) const { return call<60, Status*>(info, out); }
  Status* rank(const TensorInfo* info, size_t* out) const { return call<61, Status*>(info, out); }
  Status* dims(const TensorInfo* info, int64_t* out, size_t count) const { return call<62, Status*>(info, out, count); }
  Status* tensor_info(const Value* value, TensorInfo** out) const { return call<65, Status*>(value, out); }
  Status* input_count(const KernelContext* context, size_t* out) const { return call<88, Status*>(context, out); }
  Status* input(const KernelContext* context, size_t index, const Value** out) const {
    return call<90, Status*>(context, index, out);
  }
  Status* output(KernelContext* context, size_t index, const int64_t* dims, size_t rank, Value** out) const {
    return call<91, Status*>(context, index, dims, rank, out);
  }
  void release(Status* status) const { call<93, void>(status); }
  void release(TensorInfo* info) const { call<99, void>(info); }
  Status* integers(const KernelInfo* info, const char* name, int64_t* out, size_t* size) const {
    return call<163, Status*>(info, name, out, size);
  }
  Status* node_name(const KernelInfo* info, char* out, size_t* size) const {
    return call<244, Status*>(info, out, size);
  }
  Status* constant(const KernelInfo* info, size_t index, int* is_constant, const Value** out) const {
    return call<249, Status*>(info, index, is_constant, out);
  }
  // work(user, i) for every i below total, on the threads of the session; batches 0: each i on its own
  Status* parallel_for(const KernelContext* context, void (*work)(void*, size_t), size_t total, size_t batches,
                       void* user) const {
    return call<274, Status*>(context, work, total, batches, user);
  }

 private:
  template <int index, class Result, class... Arguments>
  Result call(Arguments... arguments) const {
    using Function = Result(GOSSAMER_ORT_CALL*)(Arguments...);
    return reinterpret_cast<Function>(const_cast<void*>(table_[index]))(arguments...);
  }

  const Table* table_;
};

// OrtCustomOp. Callbacks that a custom operator for the CPU does without are plain pointers, and null.
struct CustomOp {
  using TypeOf = Element(GOSSAMER_ORT_CALL*)(const CustomOp*, size_t);
  using PresenceOf = Presence(GOSSAMER_ORT_CALL*)(const CustomOp*, size_t);
  using Count = size_t(GOSSAMER_ORT_CALL*)(const CustomOp*);
  using Text = const char*(GOSSAMER_ORT_CALL*)(const CustomOp*);
  using Number = int(GOSSAMER_ORT_CALL*)(const CustomOp*);

  uint32_t version;
  void*(GOSSAMER_ORT_CALL* create)(const CustomOp*, const Table*, const KernelInfo*);
  Text name, provider;
  TypeOf input_type;
  Count input_count;
  TypeOf output_type;
  Count output_count;
  void(GOSSAMER_ORT_CALL* compute)(void* kernel, KernelContext*);
  void(GOSSAMER_ORT_CALL* destroy)(void* kernel);
  PresenceOf input_presence, output_presence;
  int(GOSSAMER_ORT_CALL* input_memory)(const CustomOp*, size_t);
  Number variadic_input_least, variadic_input_same, variadic_output_least, variadic_output_same;
  Status*(GOSSAMER_ORT_CALL* create_checked)(const CustomOp*, const Table*, const KernelInfo*, void** kernel);
  Status*(GOSSAMER_ORT_CALL* compute_checked)(void* kernel, KernelContext*);
  void* infer_shape;
  Number first_version, last_version;
  void *may_in_place, *release_in_place, *alias_map, *release_alias_map;
};

}  // namespace gossamer::ort
