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

  // Where a channel begins, what belongs to it, and the memory for x in frames and for what comes after it in blocks.
  struct Channel {
    int64_t start;
    const Vectors& of;
    const float* kernel;
    const Moments* given;
    Moments* moments;
    float* x;
    float* a;
  };

  void operator()(int64_t channel) const {
    const int64_t blocks = shape.blocks(), size = shape.kernel * shape.kernel;
    Scratch scratch(blocks * (shape.frame() + shape.block()));
    float* x = scratch.take(blocks * shape.frame());
    float* a = scratch.take(blocks * shape.block());
    std::memset(x, 0, sizeof(float) * blocks * shape.frame());
    const Channel own{channel * shape.map(), vectors[channel], kernel + channel * size,
                      given ? given + 2 * channel : nullptr, moments + 2 * channel, x, a};
    if (given) {
      own.moments[0] = own.given[0], own.moments[1] = own.given[1];
      evaluate(own);
    } else {
      enter(own);
      branch(own);
    }
  }

  // All of it, with given moments.
  void evaluate(const Channel& own) const {
    const Affine entry(own.given[0], own.of.entry_scale, own.of.entry_bias, epsilon);
    const Affine norm(own.given[1], own.of.scale, own.of.bias, epsilon);
    walk<0>(0, shape.blocks(), [&](const Place& place, int64_t, auto lanes, auto&) {
      store(own.x + place.framed, entry(entered(own, place, lanes)));
    });
    for (int64_t block = 0; block < shape.blocks(); ++block) {
      convolve(own, block);
      walk<0>(block, block + 1, [&](const Place& place, int64_t, auto lanes, auto&) {
        finish(own, place, block, lanes, norm(Act::value(convolved(own, place))));
      });
    }
  }

  // x, of the batch's own moments.
  void enter(const Channel& own) const {
    const auto [sum] = walk<1>(0, shape.blocks(), [&](const Place& place, int64_t, auto lanes, auto& sums) {
      const Vec value = entered(own, place, lanes);
      store(own.x + place.framed, value);
      sums[0] += value;
    });
    own.moments[0] = batch_moments(sum, [&](const Place& place) { return load(own.x + place.framed); });
    const Affine entry(own.moments[0], own.of.entry_scale, own.of.entry_bias, epsilon);
    walk<0>(0, shape.blocks(), [&](const Place& place, int64_t, auto, auto&) {
      store(own.x + place.framed, entry(load(own.x + place.framed)));
    });
  }

  // u and y, of the batch's own moments.
  void branch(const Channel& own) const {
    double total = 0;
    for (int64_t block = 0; block < shape.blocks(); ++block) {
      convolve(own, block);
      total += walk<1>(block, block + 1, [&](const Place& place, int64_t, auto lanes, auto& sums) {
        const Vec before = convolved(own, place);
        if (u) write(u + own.start + place.map, before, lanes);
        const Vec value = Act::value(before);
        store(own.a + place.packed, value);
        sums[0] += value;
      })[0];
    }
    own.moments[1] = batch_moments(total, [&](const Place& place) { return load(own.a + place.packed); });
    const Affine norm(own.moments[1], own.of.scale, own.of.bias, epsilon);
    walk<0>(0, shape.blocks(), [&](const Place& place, int64_t block, auto lanes, auto&) {
      finish(own, place, block, lanes, norm(load(own.a + place.packed)));
    });
  }

  template <int count, class Visit>
  std::array<double, count> walk(int64_t begin, int64_t end, const Visit& visit) const {
    return each<count>(shape, shape.before(), begin, end, visit);
  }

  Vec entered(const Channel& own, const Place& place, int lanes) const {
    return Act::value(read(v + own.start + place.map, lanes) + own.of.entry_bias_before);
  }

  void convolve(const Channel& own, int64_t block) const {
    correlate_any<false>(own.x + block * shape.frame(), own.kernel, own.a + block * shape.block(), shape);
  }

  Vec convolved(const Channel& own, const Place& place) const {
    return rounded<Map>(load(own.a + place.packed) + own.of.bias_before);
  }

  void finish(const Channel& own, const Place& place, int64_t block, int lanes, Vec branch) const {
    if (keep) branch *= read(keep + block * kLanes, lanes);
    write(y + own.start + place.map, branch + load(own.x + place.framed), lanes);
  }

  // The mean of values with this sum, and their mean squared distance from it.
  template <class At>
  Moments batch_moments(double sum, const At& value) const {
    const float mean = static_cast<float>(sum / shape.map());
    const auto [squares] = walk<1>(0, shape.blocks(), [&](const Place& place, int64_t, auto, auto& sums) {
      const Vec away = value(place) - mean;
      sums[0] += away * away;
    });
    return {mean, static_cast<float>(squares / shape.map())};
  }
};
