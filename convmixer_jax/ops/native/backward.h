// The gradients of one channel after the other; see ops/spatial.py.

#pragma once

#include <algorithm>

#include "activations.h"
#include "passes.h"

// The arrays of a call; operator() computes a channel.
template <class Act, class Map>
struct Backward {
  Shape shape;
  float epsilon;
  const Map* grad;
  const Map* v;
  const Map* u;
  const float* kernel;
  const Vectors* vectors;
  const float* keep;
  const Moments* moments;
  Map* v_grad;
  float* kernel_grad;
  Vectors* vectors_grad;

  // Where a channel begins, what belongs to it, and memory: x and the gradient of u in frames, the rest in blocks.
  struct Channel {
    int64_t start;
    const Vectors& of;
    const float* kernel;
    Moments first, second;
    Affine entry, norm;
    float* kernel_grad;
    Vectors& out;
    float* x;
    float* u_grad;
    float* centred;  // act(u), then act(v + bias), without its mean
    float* slopes;   // of the same
    float* x_grad;
  };

  void operator()(int64_t channel) const {
    const int64_t blocks = shape.blocks(), size = shape.kernel * shape.kernel;
    const Vectors& of = vectors[channel];
    const Moments first = moments[2 * channel], second = moments[2 * channel + 1];
    Scratch scratch(blocks * (2 * shape.frame() + 3 * shape.block()));
    float* x = scratch.take(blocks * shape.frame());
    float* u_grad = scratch.take(blocks * shape.frame());
    std::memset(x, 0, sizeof(float) * 2 * blocks * shape.frame());
    std::fill(kernel_grad + channel * size, kernel_grad + (channel + 1) * size, 0.0f);
    const Channel own{channel * shape.map(),
                      of,
                      kernel + channel * size,
                      first,
                      second,
                      Affine(first, of.entry_scale, of.entry_bias, epsilon),
                      Affine(second, of.scale, of.bias, epsilon),
                      kernel_grad + channel * size,
                      vectors_grad[channel],
                      x,
                      u_grad,
                      scratch.take(blocks * shape.block()),
                      scratch.take(blocks * shape.block()),
                      scratch.take(blocks * shape.block())};
    leave(own, branch_norm(own));
    entry_norm(own, convolution(own));
  }

  // The norm after the convolution: the branch's gradient and what its activation's needs. Returns the latter.
  AffineGrad branch_norm(const Channel& own) const {
    const auto sums = each<2>(
        shape, shape.after(), 0, shape.blocks(), [&](const Place& place, int64_t block, auto lanes, auto& sums) {
          Vec slope;
          const Vec away = Act::value(read(u + own.start + place.map, lanes), slope) - own.norm.mean;
          Vec branch = read(grad + own.start + place.map, lanes);
          if (keep) branch *= read(keep + block * kLanes, lanes);
          store(own.centred + place.packed, away);
          store(own.slopes + place.packed, slope);
          store(own.u_grad + place.framed, branch);
          sums[0] += branch;
          sums[1] += branch * away;
        });
    own.out.bias = sums[0];
    own.out.scale = sums[1] / std::sqrt(own.second.var + epsilon);
    return AffineGrad(own.norm, own.second, epsilon, sums, shape.map());
  }

  // Through the activation after the convolution; beside it x, and what its own gradient needs, again.
  void leave(const Channel& own, const AffineGrad& norm_grad) const {
    const int64_t shift = shape.framed_row(0, shape.before()) - shape.framed_row(0, shape.after());
    own.out.bias_before = each<1>(
        shape, shape.after(), 0, shape.blocks(), [&](const Place& place, int64_t, auto lanes, auto& sums) {
          const Vec before = norm_grad(load(own.u_grad + place.framed), load(own.centred + place.packed));
          Vec back = load(own.slopes + place.packed) * before;
          // Beyond the last example there are values, of zeros that were read.
          back = rounded<Map>(read(reinterpret_cast<const float*>(&back), lanes));
          store(own.u_grad + place.framed, back);
          sums[0] += back;
          Vec slope;
          const Vec value = Act::value(read(v + own.start + place.map, lanes) + own.of.entry_bias_before, slope);
          store(own.centred + place.packed, value - own.entry.mean);
          store(own.slopes + place.packed, slope);
          store(own.x + place.framed + shift, own.entry(value));
        })[0];
  }

  // The convolution, its kernel, and the residual. Returns the sums over x's gradient, and over it times `centred`.
  std::array<double, 2> convolution(const Channel& own) const {
    std::array<double, 2> totals{};
    for (int64_t block = 0; block < shape.blocks(); ++block) {
      const float* framed = own.u_grad + block * shape.frame();
      correlate_any<true>(framed, own.kernel, own.x_grad + block * shape.block(), shape);
      const float* inside = framed + shape.framed_row(0, shape.after());
      add_kernel_grad_any(own.x + block * shape.frame(), inside, own.kernel_grad, shape);
      const auto sums = each<2>(
          shape, shape.before(), block, block + 1, [&](const Place& place, int64_t, auto lanes, auto& sums) {
            const Vec sum = load(own.x_grad + place.packed) + read(grad + own.start + place.map, lanes);
            store(own.x_grad + place.packed, sum);
            sums[0] += sum;
            sums[1] += sum * load(own.centred + place.packed);
          });
      totals = {totals[0] + sums[0], totals[1] + sums[1]};
    }
    return totals;
  }

  // The entry norm and the activation before it.
  void entry_norm(const Channel& own, const std::array<double, 2>& sums) const {
    const AffineGrad entry_grad(own.entry, own.first, epsilon, sums, shape.map());
    own.out.entry_bias = sums[0];
    own.out.entry_scale = sums[1] / std::sqrt(own.first.var + epsilon);
    own.out.entry_bias_before = each<1>(
        shape, shape.before(), 0, shape.blocks(), [&](const Place& place, int64_t, auto lanes, auto& sums) {
          const Vec before = entry_grad(load(own.x_grad + place.packed), load(own.centred + place.packed));
          const Vec back = rounded<Map>(load(own.slopes + place.packed) * before);
          write(v_grad + own.start + place.map, back, lanes);
          sums[0] += back;
        })[0];
  }
};
