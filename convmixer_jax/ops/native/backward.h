// The gradients of one channel after the other; see ops/spatial.py.

#pragma once

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

  void operator()(int64_t channel) const {
    const int zeros = shape.before(), turned_zeros = shape.after(), size = shape.kernel * shape.kernel;
    const int64_t blocks = shape.blocks(), start = channel * shape.map();
    const Vectors& of = vectors[channel];
    const Moments first = moments[2 * channel], second = moments[2 * channel + 1];
    const Affine entry(first, of.entry_scale, of.entry_bias, epsilon);
    const Affine norm(second, of.scale, of.bias, epsilon);
    Vectors& out = vectors_grad[channel];
    Scratch scratch(blocks * (2 * shape.frame() + 3 * shape.block()));
    float* x = scratch.take(blocks * shape.frame());
    float* u_grad = scratch.take(blocks * shape.frame());
    float* centred = scratch.take(blocks * shape.block());
    float* slopes = scratch.take(blocks * shape.block());
    float* x_grad = scratch.take(blocks * shape.block());
    std::memset(x, 0, sizeof(float) * 2 * blocks * shape.frame());

    // The norm after the convolution.
    const auto of_branch = each<2>(
        shape, turned_zeros, 0, blocks, [&](const Place& place, int64_t block, auto lanes, auto& sums) {
          Vec slope;
          const Vec away = Act::value(read(u + start + place.map, lanes), slope) - norm.mean;
          Vec branch = read(grad + start + place.map, lanes);
          if (keep) branch *= read(keep + block * kLanes, lanes);
          store(centred + place.packed, away);
          store(slopes + place.packed, slope);
          store(u_grad + place.framed, branch);
          sums[0] += branch;
          sums[1] += branch * away;
        });
    const AffineGrad norm_grad(norm, second, epsilon, of_branch, shape.map());
    out.bias = of_branch[0];
    out.scale = of_branch[1] / std::sqrt(second.var + epsilon);

    // Through the activation; beside it x and what its own gradient needs, again.
    const int64_t shift = shape.framed_row(0, zeros) - shape.framed_row(0, turned_zeros);
    out.bias_before = each<1>(
        shape, turned_zeros, 0, blocks, [&](const Place& place, int64_t, auto lanes, auto& sums) {
          Vec back = load(slopes + place.packed) * norm_grad(load(u_grad + place.framed), load(centred + place.packed));
          // Beyond the last example there are values, of zeros that were read.
          back = read(reinterpret_cast<const float*>(&back), lanes);
          back = rounded<Map>(back);
          store(u_grad + place.framed, back);
          sums[0] += back;
          Vec slope;
          const Vec value = Act::value(read(v + start + place.map, lanes) + of.entry_bias_before, slope);
          store(centred + place.packed, value - entry.mean);
          store(slopes + place.packed, slope);
          store(x + place.framed + shift, entry(value));
        })[0];

    // The convolution, and the residual.
    std::array<double, 2> of_x{};
    float* own_kernel_grad = kernel_grad + channel * size;
    std::fill(own_kernel_grad, own_kernel_grad + size, 0.0f);
    for (int64_t block = 0; block < blocks; ++block) {
      const float* framed = u_grad + block * shape.frame();
      correlate_any<true>(framed, kernel + channel * size, x_grad + block * shape.block(), shape);
      const float* framed_grad = framed + shape.framed_row(0, turned_zeros);
      add_kernel_grad_any(x + block * shape.frame(), framed_grad, own_kernel_grad, shape);
      const auto of_block = each<2>(
          shape, zeros, block, block + 1, [&](const Place& place, int64_t, auto lanes, auto& sums) {
            const Vec sum = load(x_grad + place.packed) + read(grad + start + place.map, lanes);
            store(x_grad + place.packed, sum);
            sums[0] += sum;
            sums[1] += sum * load(centred + place.packed);
          });
      of_x = {of_x[0] + of_block[0], of_x[1] + of_block[1]};
    }

    // The entry norm.
    const AffineGrad entry_grad(entry, first, epsilon, of_x, shape.map());
    out.entry_bias = of_x[0];
    out.entry_scale = of_x[1] / std::sqrt(first.var + epsilon);
    out.entry_bias_before = each<1>(
        shape, zeros, 0, blocks, [&](const Place& place, int64_t, auto lanes, auto& sums) {
          const Vec before = entry_grad(load(x_grad + place.packed), load(centred + place.packed));
          const Vec back = rounded<Map>(load(slopes + place.packed) * before);
          write(v_grad + start + place.map, back, lanes);
          sums[0] += back;
        })[0];
  }
};
