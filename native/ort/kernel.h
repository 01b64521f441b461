// From a C++ class to a custom operator: the class checks and prepares in its constructor, runs in `compute`, and
// throws std::invalid_argument; the runtime sees an OrtStatus with the same text and never an exception.
//
//     struct Kernel {
//       static constexpr const char* name;             the operator
//       static constexpr Port inputs[], outputs[];
//       Kernel(const Creation&);
//       void compute(const Call&) const;               from several threads at once
//     };
#pragma once

#include <algorithm>
#include <iterator>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "ort/api.h"

namespace gossamer::ort {

struct Port {
  const char* name;
  Element element;
  Presence presence;
};

inline void expect(const Api& api, Status* status, const char* what) {
  if (!status) return;
  api.release(status);
  throw std::runtime_error(std::string("ONNX Runtime did not answer: ") + what);
}

// A tensor in memory of the runtime.
struct Tensor {
  Tensor(const Api& api, const Value* value) {
    TensorInfo* info = nullptr;
    expect(api, api.tensor_info(value, &info), "the shape of a tensor");
    struct Guard {
      const Api& api;
      TensorInfo* info;
      ~Guard() { api.release(info); }
    } guard{api, info};
    size_t rank = 0;
    expect(api, api.element(info, &element), "the type of a tensor");
    expect(api, api.rank(info, &rank), "the rank of a tensor");
    dims.resize(rank);
    expect(api, api.dims(info, dims.data(), rank), "the dimensions of a tensor");
    void* pointer = nullptr;
    expect(api, api.data(const_cast<Value*>(value), &pointer), "the values of a tensor");
    data = pointer;
  }
  int64_t size() const {
    int64_t count = 1;
    for (int64_t dim : dims) count *= dim;
    return count;
  }
  template <class Type>
  const Type* as() const {
    return static_cast<const Type*>(data);
  }

  Element element;
  std::vector<int64_t> dims;
  const void* data;
};

// What a constructor may ask.
class Creation {
 public:
  Creation(Api api, const KernelInfo* info) : api_(api), info_(info) {}

  // An input that is a constant of the graph, and so stays where it is while the session lives.
  Tensor constant(const Port* ports, size_t index) const {
    int is_constant = 0;
    const Value* value = nullptr;
    expect(api_, api_.constant(info_, index, &is_constant, &value), ports[index].name);
    if (!is_constant || !value) {
      throw std::invalid_argument(std::string("input '") + ports[index].name + "' changes from call to call, expected an initialiser");
    }
    return checked(ports[index], Tensor(api_, value));
  }

  // An attribute that is a list of `count` integers.
  std::vector<int64_t> integers(const char* name, size_t count) const {
    std::vector<int64_t> values(count);
    size_t size = count;
    Status* status = api_.integers(info_, name, values.data(), &size);
    if (status) api_.release(status);
    if (status || size != count) {
      throw std::invalid_argument(std::string("attribute '") + name + "' must be a list of " + std::to_string(count) +
                                  " integers");
    }
    return values;
  }

  void read(const char* name, int64_t* to, size_t count) const {
    const std::vector<int64_t> values = integers(name, count);
    std::copy(values.begin(), values.end(), to);
  }

  std::string node() const {
    size_t size = 0;
    if (Status* status = api_.node_name(info_, nullptr, &size)) api_.release(status);
    std::string text(size, '\0');
    if (Status* status = size ? api_.node_name(info_, text.data(), &size) : nullptr) api_.release(status);
    while (!text.empty() && text.back() == '\0') text.pop_back();
    return text;
  }

  static Tensor checked(const Port& port, Tensor tensor) {
    if (port.element != Element::any && tensor.element != port.element) {
      throw std::invalid_argument(std::string("input '") + port.name + "' has elements of type " +
                    std::to_string(static_cast<int>(tensor.element)) + ", expected " +
                    std::to_string(static_cast<int>(port.element)));
    }
    return tensor;
  }

 private:
  Api api_;
  const KernelInfo* info_;
};

// What `compute` may ask.
class Call {
 public:
  Call(Api api, KernelContext* context) : api_(api), context_(context) {}

  bool has(size_t index) const {
    size_t count = 0;
    expect(api_, api_.input_count(context_, &count), "the number of inputs");
    return index < count && value(index);
  }
  Tensor input(const Port* ports, size_t index) const {
    return Creation::checked(ports[index], Tensor(api_, value(index)));
  }
  template <class Type = float>
  Type* output(size_t index, const std::vector<int64_t>& dims) const {
    Value* value = nullptr;
    expect(api_, api_.output(context_, index, dims.data(), dims.size(), &value), "memory for an output");
    void* data = nullptr;
    expect(api_, api_.data(value, &data), "the place of an output");
    return static_cast<Type*>(data);
  }
  // work(i) for every i below total; work must not throw
  template <class Work>
  void parallel(int64_t total, const Work& work) const {
    if (total <= 1) {
      if (total == 1) work(0);
      return;
    }
    const auto one = [](void* user, size_t i) { (*static_cast<const Work*>(user))(static_cast<int64_t>(i)); };
    void* user = const_cast<void*>(static_cast<const void*>(&work));
    expect(api_, api_.parallel_for(context_, one, static_cast<size_t>(total), 0, user), "threads");
  }

 private:
  const Value* value(size_t index) const {
    const Value* found = nullptr;
    expect(api_, api_.input(context_, index, &found), "an input");
    return found;
  }

  Api api_;
  KernelContext* context_;
};

template <class Kernel>
struct Holder {
  Api api;
  std::string place;
  Kernel kernel;
};

template <class Work>
Status* answered(const Api& api, const std::string& place, Work work) noexcept {
  try {
    try {
      work();
      return nullptr;
    } catch (const std::bad_alloc&) {
      return api.create_status(Code::fail, (place + ": not enough memory").c_str());
    } catch (const std::exception& error) {
      return api.create_status(Code::invalid_argument, (place + ": " + error.what()).c_str());
    }
  } catch (...) {  // no memory even for the text
    return api.create_status(Code::fail, "not enough memory");
  }
}

template <class Kernel>
const CustomOp* custom_op() {
  static const CustomOp op = [] {
    CustomOp made{};
    made.version = kApiVersion;
    made.name = [](const CustomOp*) { return Kernel::name; };
    made.provider = [](const CustomOp*) -> const char* { return nullptr; };
    made.input_type = [](const CustomOp*, size_t index) { return Kernel::inputs[index].element; };
    made.input_count = [](const CustomOp*) { return std::size(Kernel::inputs); };
    made.output_type = [](const CustomOp*, size_t index) { return Kernel::outputs[index].element; };
    made.output_count = [](const CustomOp*) { return std::size(Kernel::outputs); };
    made.input_presence = [](const CustomOp*, size_t index) { return Kernel::inputs[index].presence; };
    made.output_presence = [](const CustomOp*, size_t index) { return Kernel::outputs[index].presence; };
    made.input_memory = [](const CustomOp*, size_t) { return 0; };
    made.variadic_input_least = made.variadic_output_least = [](const CustomOp*) { return 1; };
    made.variadic_input_same = made.variadic_output_same = [](const CustomOp*) { return 1; };
    made.first_version = [](const CustomOp*) { return 1; };
    made.last_version = [](const CustomOp*) { return 1; };
    made.destroy = [](void* kernel) { delete static_cast<Holder<Kernel>*>(kernel); };
    made.create_checked = [](const CustomOp*, const Table* table, const KernelInfo* info, void** kernel) {
      const Api api(table);
      std::string place = Kernel::name;
      return answered(api, place, [&] {
        const Creation creation(api, info);
        place += " node '" + creation.node() + "'";
        *kernel = new Holder<Kernel>{api, place, Kernel(creation)};
      });
    };
    made.compute_checked = [](void* kernel, KernelContext* context) {
      const auto* holder = static_cast<const Holder<Kernel>*>(kernel);
      return answered(holder->api, holder->place, [&] { holder->kernel.compute(Call(holder->api, context)); });
    };
    return made;
  }();
  return &op;
}

}  // namespace gossamer::ort
