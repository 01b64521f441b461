#include "cpu.h"

#include <atomic>
#include <cstdlib>
#include <cstring>

#include "gossamer.h"

namespace gossamer {
namespace {

Isa best() {
#ifdef GOSSAMER_X86
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2") &&
                    __builtin_cpu_supports("fma");
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  if (avx2 && avx512) return Isa::avx512;
  if (avx2) return Isa::avx2;
#endif
  return Isa::portable;
}

// A name asks for at most that variant: a machine without it runs the next one below.
Isa limited(const char* name) {
  const Isa top = best();
  Isa wanted = top;
  if (std::strcmp(name, "portable") == 0) wanted = Isa::portable;
  if (std::strcmp(name, "avx2") == 0) wanted = Isa::avx2;
  return wanted < top ? wanted : top;
}

std::atomic<Isa>& chosen() {
  static std::atomic<Isa> value{[] {
    const char* name = std::getenv("GOSSAMER_ISA");
    return limited(name ? name : "");
  }()};
  return value;
}

}  // namespace

Isa isa() { return chosen().load(std::memory_order_relaxed); }

}  // namespace gossamer

extern "C" {

int32_t gossamer_abi(void) { return 1; }

const char* gossamer_isa(void) {
  switch (gossamer::isa()) {
    case gossamer::Isa::avx512: return "avx512";
    case gossamer::Isa::avx2: return "avx2";
    default: return "portable";
  }
}

int32_t gossamer_set_isa(const char* name) {
  if (!name) return GOSSAMER_BAD_ARGUMENT;
  const char* known[] = {"", "portable", "avx2", "avx512"};
  for (const char* one : known) {
    if (std::strcmp(name, one) == 0) {
      gossamer::chosen().store(gossamer::limited(name));
      return 0;
    }
  }
  return GOSSAMER_BAD_ARGUMENT;
}

void gossamer_free(uint8_t* buffer) { std::free(buffer); }

}  // extern "C"
