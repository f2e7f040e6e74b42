// What ops/spatial.py computes between two products over channels, one channel after the other while it lies in cache.
//
// The formulas and the names are those of spatial.py: v, entry norm, x, depthwise, u, norm, y, and their gradients.
// Statistics take two passes. A channel is one thread's work from beginning to end, so results do not depend on how
// many threads there are.

#include <atomic>
#include <functional>
#include <memory>
#include <thread>

#include "backward.h"
#include "forward.h"
#include "xla/ffi/api/ffi.h"

namespace {

namespace ffi = xla::ffi;

// Calls work(task) for each task, on the threads of the pool and this one; returns when all are done.
//
// This thread waits for tasks that another has begun, never for one in the pool's queue: the pool may be waiting for
// this thread.
template <class Work>
void parallel(ffi::ThreadPool& pool, int64_t tasks, const Work& work) {
  struct Count {
    std::atomic<int64_t> begun{0}, done{0};
  };
  auto count = std::make_shared<Count>();
  const Work* shared_work = &work;  // is not touched by who finds no task left, after this function has returned
  auto run = [count, tasks, shared_work] {
    for (int64_t task; (task = count->begun.fetch_add(1)) < tasks; count->done.fetch_add(1)) (*shared_work)(task);
  };
  const int64_t helpers = std::min<int64_t>(pool.num_threads(), tasks) - 1;
  for (int64_t helper = 0; helper < helpers; ++helper) pool.Schedule(std::function<void()>(run));
  run();
  while (count->done.load() < tasks) std::this_thread::yield();
}

// Calls run with an activation's and a map's type.
template <class Run>
ffi::Error by_types(int64_t activation, ffi::DataType type, const Run& run) {
  const bool narrow = type == ffi::DataType::BF16;
  if (!narrow && type != ffi::DataType::F32) return ffi::Error::InvalidArgument("maps are float32 or bfloat16");
  if (activation == 0) {
    narrow ? run(Gelu(), BFloat16()) : run(Gelu(), Float32());
  } else {
    narrow ? run(Relu(), BFloat16()) : run(Relu(), Float32());
  }
  return ffi::Error::Success();
}

Shape shape_of(const ffi::AnyBuffer& map, const ffi::Buffer<ffi::F32>& kernel) {
  const auto sizes = map.dimensions();
  return {sizes[0], sizes[1], sizes[2], sizes[3], static_cast<int>(kernel.dimensions()[1])};
}

// The buffer's values as other ones, or null where it is empty.
template <class As, class Buffer>
As* values(Buffer& buffer) {
  return buffer.element_count() ? reinterpret_cast<As*>(buffer.untyped_data()) : nullptr;
}

ffi::Error spatial_forward(ffi::ThreadPool pool, int64_t activation, float epsilon, ffi::AnyBuffer v,
                           ffi::Buffer<ffi::F32> kernel, ffi::Buffer<ffi::F32> vectors, ffi::Buffer<ffi::F32> keep,
                           ffi::Buffer<ffi::F32> given, ffi::Result<ffi::AnyBuffer> y, ffi::Result<ffi::AnyBuffer> u,
                           ffi::ResultBuffer<ffi::F32> moments) {
  const Shape shape = shape_of(v, kernel);
  return by_types(activation, v.element_type(), [&](auto act, auto map) {
    using Map = decltype(map);
    const Forward<decltype(act), Map> work{
        shape, epsilon, values<Map>(v), kernel.typed_data(), values<Vectors>(vectors), values<float>(keep),
        values<Moments>(given), values<Map>(*y), values<Map>(*u), values<Moments>(*moments)};
    parallel(pool, shape.channels, work);
  });
}

ffi::Error spatial_backward(ffi::ThreadPool pool, int64_t activation, float epsilon, ffi::AnyBuffer grad,
                            ffi::AnyBuffer v, ffi::AnyBuffer u, ffi::Buffer<ffi::F32> kernel,
                            ffi::Buffer<ffi::F32> vectors, ffi::Buffer<ffi::F32> keep, ffi::Buffer<ffi::F32> moments,
                            ffi::Result<ffi::AnyBuffer> v_grad, ffi::ResultBuffer<ffi::F32> kernel_grad,
                            ffi::ResultBuffer<ffi::F32> vectors_grad) {
  const Shape shape = shape_of(v, kernel);
  return by_types(activation, v.element_type(), [&](auto act, auto map) {
    using Map = decltype(map);
    const Backward<decltype(act), Map> work{
        shape, epsilon, values<Map>(grad), values<Map>(v), values<Map>(u), kernel.typed_data(),
        values<Vectors>(vectors), values<float>(keep), values<Moments>(moments), values<Map>(*v_grad),
        kernel_grad->typed_data(), values<Vectors>(*vectors_grad)};
    parallel(pool, shape.channels, work);
  });
}

}  // namespace

using Floats = ffi::Buffer<ffi::F32>;

XLA_FFI_DEFINE_HANDLER_SYMBOL(convmixer_spatial_forward, spatial_forward,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Attr<int64_t>("activation")
                                  .Attr<float>("epsilon")
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Ret<Floats>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(convmixer_spatial_backward, spatial_backward,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Attr<int64_t>("activation")
                                  .Attr<float>("epsilon")
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Ret<Floats>()
                                  .Ret<Floats>());
