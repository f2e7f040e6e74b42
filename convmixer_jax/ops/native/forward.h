// y, u and the moments of one channel after the other; see ops/spatial.py.

#pragma once

#include "activations.h"
#include "passes.h"

// The arrays of a call; operator() computes a channel.
template <class Act, class Map>
struct Forward {
  Shape shape;
  float epsilon;
  const Map* v;
  const float* kernel;
  const Vectors* vectors;
  const float* keep;
  const Moments* given;
  Map* y;
  Map* u;  // or null
  Moments* moments;

  void operator()(int64_t channel) const {
    const int zeros = shape.before();
    const int64_t blocks = shape.blocks(), start = channel * shape.map();
    const Vectors& of = vectors[channel];
    Scratch scratch(blocks * (shape.frame() + shape.block()));
    float* x = scratch.take(blocks * shape.frame());
    float* a = scratch.take(blocks * shape.block());
    std::memset(x, 0, sizeof(float) * blocks * shape.frame());
    const Moments* given_of = given ? given + 2 * channel : nullptr;
    Moments* moments_of = moments + 2 * channel;

    const auto activated = [&](const Place& place, int lanes) {
      return Act::value(read(v + start + place.map, lanes) + of.entry_bias_before);
    };
    if (given) {
      moments_of[0] = given_of[0];
      const Affine entry(given_of[0], of.entry_scale, of.entry_bias, epsilon);
      each<0>(shape, zeros, 0, blocks, [&](const Place& place, int64_t, auto lanes, auto&) {
        store(x + place.framed, entry(activated(place, lanes)));
      });
    } else {
      const auto [sum] = each<1>(shape, zeros, 0, blocks, [&](const Place& place, int64_t, auto lanes, auto& sums) {
        const Vec value = activated(place, lanes);
        store(x + place.framed, value);
        sums[0] += value;
      });
      moments_of[0] = batch_moments(sum, [&](const Place& place) { return load(x + place.framed); });
      const Affine entry(moments_of[0], of.entry_scale, of.entry_bias, epsilon);
      each<0>(shape, zeros, 0, blocks, [&](const Place& place, int64_t, auto, auto&) {
        store(x + place.framed, entry(load(x + place.framed)));
      });
    }

    const auto convolved = [&](int64_t block) {
      correlate_any<false>(x + block * shape.frame(), kernel + channel * shape.kernel * shape.kernel,
                           a + block * shape.block(), shape);
    };
    const auto before_norm = [&](const Place& place) { return rounded<Map>(load(a + place.packed) + of.bias_before); };
    const auto finish = [&](const Place& place, int64_t block, auto lanes, Vec branch) {
      if (keep) branch *= read(keep + block * kLanes, lanes);
      write(y + start + place.map, branch + load(x + place.framed), lanes);
    };
    if (given) {
      moments_of[1] = given_of[1];
      const Affine norm(given_of[1], of.scale, of.bias, epsilon);
      for (int64_t block = 0; block < blocks; ++block) {
        convolved(block);
        each<0>(shape, zeros, block, block + 1, [&](const Place& place, int64_t block, auto lanes, auto&) {
          finish(place, block, lanes, norm(Act::value(before_norm(place))));
        });
      }
      return;
    }
    double total = 0;
    for (int64_t block = 0; block < blocks; ++block) {
      convolved(block);
      total += each<1>(shape, zeros, block, block + 1, [&](const Place& place, int64_t, auto lanes, auto& sums) {
        const Vec before = before_norm(place);
        if (u) write(u + start + place.map, before, lanes);
        const Vec value = Act::value(before);
        store(a + place.packed, value);
        sums[0] += value;
      })[0];
    }
    moments_of[1] = batch_moments(total, [&](const Place& place) { return load(a + place.packed); });
    const Affine norm(moments_of[1], of.scale, of.bias, epsilon);
    each<0>(shape, zeros, 0, blocks, [&](const Place& place, int64_t block, auto lanes, auto&) {
      finish(place, block, lanes, norm(load(a + place.packed)));
    });
  }

  // The mean of values with this sum, and their mean squared distance from it.
  template <class At>
  Moments batch_moments(double sum, const At& value) const {
    const float mean = static_cast<float>(sum / shape.map());
    const auto [squares] = each<1>(shape, shape.before(), 0, shape.blocks(),
                                   [&](const Place& place, int64_t, auto, auto& sums) {
                                     const Vec away = value(place) - mean;
                                     sums[0] += away * away;
                                   });
    return {mean, static_cast<float>(squares / shape.map())};
  }
};
