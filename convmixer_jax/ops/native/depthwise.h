// The depthwise convolution of one channel and a block of examples, and the gradient of its kernel.
//
// A map [H, W, B] of a channel is taken in blocks of kLanes examples, [H, W, kLanes], each in a frame of zeros: then no
// position is a special one, and neighbours in a row share their loads.

#pragma once

#include <algorithm>

#include "vectors.h"

// Positions of a row that are computed together. Each needs a register beside the row of the kernel.
constexpr int kTile = kLanes == 16 ? 8 : 4;

struct Shape {
  int64_t channels, height, width, examples;
  int kernel;

  int before() const { return (kernel - 1) / 2; }  // of an even kernel, the extra zeros come at the end
  int after() const { return kernel - 1 - before(); }
  int64_t blocks() const { return (examples + kLanes - 1) / kLanes; }
  int lanes(int64_t block) const { return std::min<int64_t>(kLanes, examples - block * kLanes); }
  int64_t map() const { return height * width * examples; }  // values of a channel
  // Of a frame: the rows are as long as whole tiles of outputs read.
  int64_t framed_width() const { return (width + kTile - 1) / kTile * kTile + kernel - 1; }
  int64_t frame() const { return (height + kernel - 1) * framed_width() * kLanes; }
  int64_t block() const { return height * width * kLanes; }  // values without the frame
  // Where row h of a frame with so many zeros before it begins.
  int64_t framed_row(int64_t h, int zeros) const { return ((h + zeros) * framed_width() + zeros) * kLanes; }
};

// out [H, W, kLanes] = framed, correlated with kernel [K, K], or with the kernel turned by 180 degrees.
template <int K, bool turned>
void correlate(const float* framed, const float* kernel, float* out, const Shape& shape) {
  for (int64_t h = 0; h < shape.height; ++h) {
    for (int64_t first = 0; first < shape.width; first += kTile) {
      Vec sums[kTile] = {};
      for (int i = 0; i < K; ++i) {
        const float* row = framed + ((h + i) * shape.framed_width() + first) * kLanes;
        const float* weights = kernel + (turned ? K - 1 - i : i) * K;
        Vec weight[K];
        for (int j = 0; j < K; ++j) weight[j] = splat(weights[turned ? K - 1 - j : j]);
#pragma GCC unroll 32
        for (int column = 0; column < kTile + K - 1; ++column) {
          const Vec value = load(row + column * kLanes);
#pragma GCC unroll 32
          for (int w = 0; w < kTile; ++w)
            if (column >= w && column - w < K) sums[w] += value * weight[column - w];
        }
      }
      const int64_t count = std::min<int64_t>(kTile, shape.width - first);
      for (int64_t w = 0; w < count; ++w) store(out + (h * shape.width + first + w) * kLanes, sums[w]);
    }
  }
}

// Adds to rows [first_row, first_row + Rows) of the kernel's gradient [K, K].
// grad: where the map begins within its frame, whose rows are as long as those of `framed`.
template <int K, int Rows>
void kernel_rows(const float* framed, const float* grad, int first_row, float* kernel_grad, const Shape& shape) {
  Vec sums[Rows][K] = {};
  for (int64_t h = 0; h < shape.height; ++h) {
    for (int64_t first = 0; first < shape.width; first += kTile) {
      const float* grads = grad + (h * shape.framed_width() + first) * kLanes;
#pragma GCC unroll 32
      for (int i = 0; i < Rows; ++i) {
        const float* row = framed + ((h + first_row + i) * shape.framed_width() + first) * kLanes;
#pragma GCC unroll 32
        for (int column = 0; column < kTile + K - 1; ++column) {
          const Vec value = load(row + column * kLanes);
#pragma GCC unroll 32
          for (int w = 0; w < kTile; ++w)
            if (column >= w && column - w < K) sums[i][column - w] += value * load(grads + w * kLanes);
        }
      }
    }
  }
  for (int i = 0; i < Rows; ++i)
    for (int j = 0; j < K; ++j)
      for (int lane = 0; lane < kLanes; ++lane) kernel_grad[(first_row + i) * K + j] += sums[i][j][lane];
}

// Adds to the kernel's gradient [K, K]; see kernel_rows.
template <int K>
void add_kernel_grad(const float* framed, const float* grad, float* kernel_grad, const Shape& shape) {
  // Of a small kernel several rows at once: one row has too few sums to keep the multipliers busy.
  constexpr int kRows = K <= 3 ? K : K <= 7 ? 2 : 1;
  int row = 0;
  for (; row + kRows <= K; row += kRows) kernel_rows<K, kRows>(framed, grad, row, kernel_grad, shape);
  for (; row < K; ++row) kernel_rows<K, 1>(framed, grad, row, kernel_grad, shape);
}

constexpr int kLargestKernel = 9;

// The same for the kernel size of the shape, at most kLargestKernel: there is a program for each.
template <bool turned, int K = 1>
void correlate_any(const float* framed, const float* kernel, float* out, const Shape& shape) {
  if (shape.kernel == K) return correlate<K, turned>(framed, kernel, out, shape);
  if constexpr (K < kLargestKernel) correlate_any<turned, K + 1>(framed, kernel, out, shape);
}

template <int K = 1>
void add_kernel_grad_any(const float* framed, const float* grad, float* kernel_grad, const Shape& shape) {
  if (shape.kernel == K) return add_kernel_grad<K>(framed, grad, kernel_grad, shape);
  if constexpr (K < kLargestKernel) add_kernel_grad_any<K + 1>(framed, grad, kernel_grad, shape);
}

Vec kept(const float* keep, int64_t block, int lanes) {
  return keep ? read(keep + block * kLanes, lanes) : splat(1.0f);
}
