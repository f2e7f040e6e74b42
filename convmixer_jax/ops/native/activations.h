// GELU and ReLU with their slopes, as ops/activations.py defines them.

#pragma once

#include <initializer_list>

#include "vectors.h"

// exp(x) for x <= 0, to 2 ulp; 1e-38 below -87. NaN stays NaN.
inline Vec exp_below_zero(Vec x) {
  x = select(x < -87.0f, splat(-87.0f), x);
  // x = n ln 2 + r; ln 2 in two parts, so that n times the first is exact.
  const IntVec n = __builtin_convertvector(x * 1.44269504f - 0.5f, IntVec);
  const Vec whole = __builtin_convertvector(n, Vec);
  const Vec r = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
  // Taylor's series: |r| is at most ln 2 / 2, so the first term left out is below 6e-9.
  Vec sum = splat(1.0f / 5040);
  for (const float term : {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f}) sum = sum * r + term;
  return sum * (Vec)((n + 127) << 23);
}

struct Gelu {
  // Phi(u), the normal distribution function, and exp(-u^2 / 2).
  //
  // Beyond t = |u| lies exp(-t^2 / 2) R(t), where R(t) = erfcx(t / sqrt(2)) / 2 has no exponential in it. R is a
  // polynomial in 1 / (1 + 0.3 t), fitted in float64 to a relative error of 6e-8 at all t up to 13.5, where exp ends.
  static Vec distribution(Vec u, Vec& bell) {
    const Vec t = select(u < 0.0f, -u, u);
    const Vec s = 1.0f / (1.0f + 0.3f * t);
    bell = exp_below_zero(-0.5f * t * t);
    Vec ratio = splat(0.03833408281207085f);
    for (const float term : {-0.16895106434822083f, 0.22821547091007233f, -0.0759974867105484f, 0.1421836018562317f,
                             0.09483359754085541f, 0.1218818947672844f, 0.11949308961629868f, 6.8515914790623356e-06f})
      ratio = ratio * s + term;
    const Vec beyond = ratio * bell;
    return select(u < 0.0f, beyond, 1.0f - beyond);
  }

  static Vec value(Vec u) {
    Vec bell;
    return u * distribution(u, bell);
  }

  static Vec value(Vec u, Vec& slope) {
    Vec bell;
    const Vec phi = distribution(u, bell);
    slope = phi + u * (0.398942280f * bell);
    return u * phi;
  }
};

struct Relu {
  // Written so that NaN stays NaN.
  static Vec value(Vec u) { return select(u < 0.0f, splat(0.0f), u); }

  static Vec value(Vec u, Vec& slope) {
    slope = select(u > 0.0f, splat(1.0f), splat(0.0f));
    return value(u);
  }
};
