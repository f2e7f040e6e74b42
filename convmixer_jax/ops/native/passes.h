// What the passes over a channel are made of: memory, the walk over all values with its sums, and the norm.

#pragma once

#include <array>
#include <cmath>
#include <type_traits>
#include <vector>

#include "depthwise.h"

// Float32 memory of a thread that is kept from call to call, aligned to a vector.
class Scratch {
 public:
  explicit Scratch(int64_t size) {
    thread_local std::vector<float> memory;
    if (static_cast<int64_t>(memory.size()) < size + kLanes) memory.resize(size + kLanes);
    const auto address = reinterpret_cast<uintptr_t>(memory.data());
    next_ = reinterpret_cast<float*>((address + sizeof(Vec) - 1) / sizeof(Vec) * sizeof(Vec));
  }

  float* take(int64_t size) {
    float* taken = next_;
    next_ += size;
    return taken;
  }

 private:
  float* next_;
};

// Where a vector lies: in the map, in blocks without frames, and in frames with so many zeros before.
struct Place {
  int64_t map, packed, framed;
};

// Calls visit(place, block, lanes, sums) for each position of blocks [begin, end), and returns what it added to `sums`,
// `count` vectors: float32 within a row, float64 from there on, lanes of examples alone.
template <int count, class Visit>
std::array<double, count> each(const Shape& shape, int zeros, int64_t begin, int64_t end, const Visit& visit) {
  std::array<double, count> totals{};
  for (int64_t block = begin; block < end; ++block) {
    const auto rows = [&](auto lanes) {
      for (int64_t h = 0; h < shape.height; ++h) {
        const int64_t row = h * shape.width;
        Place place{row * shape.examples + block * kLanes, block * shape.block() + row * kLanes,
                    block * shape.frame() + shape.framed_row(h, zeros)};
        std::array<Vec, count> sums{};
        for (int64_t w = 0; w < shape.width; ++w) {
          visit(place, block, lanes, sums);
          place = {place.map + shape.examples, place.packed + kLanes, place.framed + kLanes};
        }
        for (int sum = 0; sum < count; ++sum)
          for (int lane = 0; lane < lanes; ++lane) totals[sum] += sums[sum][lane];
      }
    };
    // The compiler knows how many lanes a whole vector has.
    if (shape.lanes(block) == kLanes) {
      rows(std::integral_constant<int, kLanes>());
    } else {
      rows(shape.lanes(block));
    }
  }
  return totals;
}

// As layout.py puts them into columns: Vectors [C, 6], and Moments [C, 4], those of the entry first.
struct Vectors {  // of a channel
  float entry_bias_before, entry_scale, entry_bias, bias_before, scale, bias;
};
struct Moments {
  float mean, var;
};

// y = (act(u) - mean) * factor + bias.
struct Affine {
  float mean, factor, bias;

  Affine(Moments moments, float scale, float bias, float epsilon)
      : mean(moments.mean), factor(scale / std::sqrt(moments.var + epsilon)), bias(bias) {}
  Vec operator()(Vec value) const { return (value - mean) * factor + bias; }
};

// The gradient of act(u) from that of Affine, g: factor * (g - E[g] - c / (var + epsilon) * E[g c]), c = act(u) - mean.
struct AffineGrad {
  float factor, mean_grad, mean_product;

  // sums: of g and of g c, over so many values.
  AffineGrad(const Affine& affine, Moments moments, float epsilon, std::array<double, 2> sums, double count)
      : factor(affine.factor),
        mean_grad(static_cast<float>(affine.factor * (sums[0] / count))),
        mean_product(static_cast<float>(affine.factor * (sums[1] / count) / (moments.var + epsilon))) {}
  Vec operator()(Vec grad, Vec centred) const { return factor * grad - mean_grad - mean_product * centred; }
};
