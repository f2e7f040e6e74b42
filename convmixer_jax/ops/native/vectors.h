// Vectors of float32 as long as the machine's registers, and maps in memory as float32 or bfloat16.

#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

// Extensions of GCC and Clang: arithmetic and comparisons of all lanes, and of a vector with a number.
typedef float Vec __attribute__((vector_size(kLanes * 4)));
typedef int32_t IntVec __attribute__((vector_size(kLanes * 4)));
typedef uint32_t BitVec __attribute__((vector_size(kLanes * 4)));
typedef uint16_t HalfVec __attribute__((vector_size(kLanes * 2)));

// What a map's values are in memory; bfloat16 as its bits.
using Float32 = float;
using BFloat16 = uint16_t;

inline Vec splat(float value) { return Vec{} + value; }

// Where mask (of a comparison) holds, a, elsewhere b.
inline Vec select(IntVec mask, Vec a, Vec b) { return (Vec)(((IntVec)a & mask) | ((IntVec)b & ~mask)); }

// Of aligned float32, all lanes.
inline Vec load(const float* from) { return *reinterpret_cast<const Vec*>(from); }
inline void store(float* to, Vec value) { *reinterpret_cast<Vec*>(to) = value; }

// Copies the first `lanes` values between memory, not aligned, and a vector of such values: in one move if that is all.
template <class Value, class Values>
void get(const Value* from, Values& to, int lanes) {
  std::memcpy(&to, from, lanes == kLanes ? sizeof(to) : sizeof(Value) * lanes);
}
template <class Value, class Values>
void put(Value* to, const Values& from, int lanes) {
  std::memcpy(to, &from, lanes == kLanes ? sizeof(from) : sizeof(Value) * lanes);
}

// The first `lanes` values of a map, and zeros.
inline Vec read(const Float32* from, int lanes) {
  Vec value{};
  get(from, value, lanes);
  return value;
}

inline Vec read(const BFloat16* from, int lanes) {
  HalfVec bits{};
  get(from, bits, lanes);
  return (Vec)(__builtin_convertvector(bits, BitVec) << 16);
}

// Rounded to the nearest, of two as near to the even one; NaN stays NaN.
inline HalfVec to_half(Vec value) {
  const BitVec bits = (BitVec)value;
  const BitVec rounded = bits + 0x7fff + ((bits >> 16) & 1);
  const BitVec quiet = bits | 0x00400000;
  const BitVec is_nan = (BitVec)(value != value);
  return __builtin_convertvector(((quiet & is_nan) | (rounded & ~is_nan)) >> 16, HalfVec);
}

inline void write(Float32* to, Vec value, int lanes) { put(to, value, lanes); }
inline void write(BFloat16* to, Vec value, int lanes) { put(to, to_half(value), lanes); }

// The value as it will be read again.
template <class Map>
Vec rounded(Vec value) {
  if constexpr (sizeof(Map) == sizeof(float)) {
    return value;
  } else {
    return (Vec)(__builtin_convertvector(to_half(value), BitVec) << 16);
  }
}
