// Which variant of an operation this machine runs: decided once, never by -march.
#pragma once

#if (defined(__x86_64__) || defined(_M_X64)) && (defined(__GNUC__) || defined(__clang__))
#define GOSSAMER_X86 1
#define GOSSAMER_TARGET(isa) __attribute__((target(isa)))
#endif
#if defined(__aarch64__) && (defined(__GNUC__) || defined(__clang__))
#define GOSSAMER_NEON 1  // every such processor has it: no target, no question at run time
#endif

namespace gossamer {

enum class Isa { portable, neon, avx2, avx512 };

Isa isa();

}  // namespace gossamer
