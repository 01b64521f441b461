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
#ifdef GOSSAMER_NEON
  return Isa::neon;
#else
  return Isa::portable;
#endif
}

constexpr const char* kNames[] = {"portable", "neon", "avx2", "avx512"};  // in the order of Isa

// A name asks for at most that variant, in the order of Isa whatever the architecture: a machine without it runs the next
// one below that it has, ARM NEON for "avx2" and x86 the portable code for "neon".
Isa limited(const char* name) {
  const Isa top = best();
  int at = 0;
  while (at < static_cast<int>(top) && std::strcmp(name, kNames[at]) != 0) ++at;
  const Isa found = static_cast<Isa>(at);
  return found == Isa::neon && top != Isa::neon ? Isa::portable : found;
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

const char* gossamer_isa(void) { return gossamer::kNames[static_cast<int>(gossamer::isa())]; }

int32_t gossamer_set_isa(const char* name) {
  if (!name) return GOSSAMER_BAD_ARGUMENT;
  bool known = *name == 0;
  for (const char* one : gossamer::kNames) known |= std::strcmp(name, one) == 0;
  if (!known) return GOSSAMER_BAD_ARGUMENT;
  gossamer::chosen().store(gossamer::limited(name));
  return 0;
}

void gossamer_free(uint8_t* buffer) { std::free(buffer); }

}  // extern "C"
