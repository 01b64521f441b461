// A vector whose elements begin on a line of the cache and start with no value.
#pragma once

#include <cstddef>
#include <new>
#include <utility>
#include <vector>

namespace gossamer::ternary {

template <class Type>
struct Lines {
  using value_type = Type;
  static constexpr std::align_val_t kLine{64};
  Lines() = default;
  template <class Other>
  Lines(const Lines<Other>&) {}
  Type* allocate(size_t count) { return static_cast<Type*>(::operator new(count * sizeof(Type), kLine)); }
  void deallocate(Type* data, size_t) { ::operator delete(data, kLine); }
  template <class Other>
  void construct(Other* at) noexcept {
    ::new (static_cast<void*>(at)) Other;  // resize() writes nothing
  }
  template <class Other, class... Given>
  void construct(Other* at, Given&&... given) {
    ::new (static_cast<void*>(at)) Other(std::forward<Given>(given)...);
  }
  bool operator==(const Lines&) const { return true; }
  bool operator!=(const Lines&) const { return false; }
};

template <class Type>
using Aligned = std::vector<Type, Lines<Type>>;

}  // namespace gossamer::ternary
