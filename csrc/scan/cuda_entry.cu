// How a call is cut, by sizes alone, and its kernels in their order.
#include "scan/cuda_scan.cuh"

namespace saccade::scan_device {
namespace {

constexpr int64_t kEnoughBlocks = 256;  // for any device of today, and the same on all
constexpr int kShortestSegment = 64;

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Lanes and states a lane of the kernels for N states.
struct Variant {
  int lanes, states;
};

Variant variant(const Problem& p) {
  const int n = p.states;
  if (!p.scalar && n == 1) return {1, 1};
  if (!p.scalar && n <= 4) return {1, 4};
  if (n <= 16) return {4, 4};
  if (n <= 64) return {16, 4};
  return {32, 8};
}

Partition cut(const Problem& p, int64_t unit) {
  Partition c{};
  c.tile = kThreads / variant(p).lanes;
  c.tiles = static_cast<int>(ceil_div(p.channels / p.groups, c.tile));
  const int64_t rows = int64_t{p.batch} * p.paths * p.groups * c.tiles;
  int64_t segments = ceil_div(kEnoughBlocks, rows);
  const int64_t most = ceil_div(p.length, kShortestSegment);
  if (segments > most) segments = most;
  c.steps = static_cast<int>(ceil_div(ceil_div(p.length, segments), unit) * unit);
  c.segments = static_cast<int>(ceil_div(p.length, c.steps));
  c.slots = c.tiles;
  c.tiles_a_block = 1;
  return c;
}

// Hands out parts of a buffer; of a null one, their sizes alone.
class Scratch {
 public:
  explicit Scratch(float* data) : data_(data) {}
  float* take(int64_t count, bool wanted = true) {
    if (!wanted) return nullptr;
    float* const part = data_ == nullptr ? nullptr : data_ + used_;
    used_ += count;
    return part;
  }
  int64_t used() const { return used_; }

 private:
  float* data_;
  int64_t used_ = 0;
};

// A float table [K, B, D, L].
View table_view(const Problem& p, float* data) {
  const int64_t length = p.length, rows = p.channels * length;
  return {data, Dtype::kFloat, rows, p.batch * rows, length, 0, 1};
}

int64_t state_count(const Problem& p) { return int64_t{p.paths} * p.channels * p.states; }

// Sets the parts of f.scratch and returns their size; out becomes the table of the paths.
int64_t place(Forward& f, const Partition& c) {
  const Problem& p = f.problem;
  Scratch scratch(f.scratch);
  const int64_t states = p.batch * state_count(p) * c.segments;
  f.decay = scratch.take(states, c.segments > 1);
  f.inflow = scratch.take(states, c.segments > 1);
  if (p.paths > 1) {
    f.out = table_view(p, scratch.take(int64_t{p.paths} * p.batch * p.channels * p.length));
  }
  return scratch.used();
}

// As above; grad_u becomes the table of the paths, grad_delta that of the channels of a head.
int64_t place(Backward& b, const Partition& c) {
  const Problem& p = b.problem;
  Scratch scratch(b.scratch);
  const int64_t rows = int64_t{p.batch} * c.segments, channels = int64_t{p.paths} * p.channels;
  const int64_t map = p.batch * channels * p.length;
  const int64_t of_inputs = int64_t{p.batch} * p.paths * p.groups * p.states * p.length;
  const bool several = p.paths > 1;
  b.slots_a = scratch.take(rows * (p.scalar ? channels : state_count(p)));
  b.slots_d = scratch.take(rows * channels, p.d != nullptr);
  b.slots_bias = scratch.take(rows * channels, p.bias != nullptr);
  b.slots_b = scratch.take(p.constant_b ? rows * state_count(p) : c.slots * of_inputs);
  b.slots_c = scratch.take(p.constant_c ? rows * state_count(p) : c.slots * of_inputs);
  b.decay = scratch.take(rows * state_count(p), c.segments > 1);
  b.inflow = scratch.take(rows * state_count(p), c.segments > 1);
  b.restart = scratch.take(c.blocks(p) * c.restart, c.restart > 0);
  if (several) b.grad_u = table_view(p, scratch.take(map));
  if (several && p.z.data != nullptr) b.y = table_view(p, scratch.take(map));
  if (p.share > 1) b.grad_delta = table_view(p, scratch.take(map));
  return scratch.used();
}

cudaError_t sum_input(const Problem& p, const Partition& c, bool constant, const float* slots,
                      const View& grad, cudaStream_t stream) {
  if (!constant) return sum_inputs(p, slots, c.slots, grad, stream);
  return sum_slots(slots, static_cast<float*>(grad.data), state_count(p),
                   int64_t{p.batch} * c.segments, 1, stream);
}

}  // namespace

Partition cut_forward(const Problem& p) { return cut(p, kSteps); }

Partition cut_backward(const Problem& p) {
  Partition c = cut(p, p.interval);
  // fewer blocks than tiles keep the tables of the gradients of B and C small
  const int64_t rows = int64_t{p.batch} * p.paths * p.groups * c.segments;
  int64_t slots = ceil_div(4 * kEnoughBlocks, rows);
  if (slots > c.tiles) slots = c.tiles;
  c.tiles_a_block = static_cast<int>(ceil_div(c.tiles, slots));
  c.slots = static_cast<int>(ceil_div(c.tiles, c.tiles_a_block));
  const Variant v = variant(p);
  const int kept = v.lanes >= 16 ? 8 : 16;
  const int64_t longest = p.interval < p.length ? p.interval : p.length;
  c.parts = static_cast<int>(ceil_div(longest, kept));
  c.restart = int64_t{c.parts - 1} * v.states * kThreads;
  return c;
}

int64_t forward_scratch(const Problem& p) {
  Forward f{};
  f.problem = p;
  return place(f, cut_forward(p));
}

int64_t backward_scratch(const Problem& p) {
  Backward b{};
  b.problem = p;
  return place(b, cut_backward(p));
}

cudaError_t forward(const Forward& arguments, cudaStream_t stream) {
  Forward f = arguments;
  const Problem& p = f.problem;
  const Partition c = cut_forward(p);
  place(f, c);
  const cudaError_t error = p.scalar ? head_forward(f, c, stream) : scan_forward(f, c, stream);
  if (error != cudaSuccess || p.paths == 1) return error;
  return join_outputs(p, static_cast<const float*>(f.out.data), arguments.out, stream);
}

cudaError_t backward(const Backward& arguments, cudaStream_t stream) {
  Backward b = arguments;
  const Problem& p = b.problem;
  const Partition c = cut_backward(p);
  place(b, c);
  const int64_t rows = int64_t{p.batch} * c.segments, channels = int64_t{p.paths} * p.channels;
  const int64_t heads = channels / p.share;
  cudaError_t error = p.scalar ? head_backward(b, c, stream) : scan_backward(b, c, stream);
  const auto then = [&](auto stage) {
    if (error == cudaSuccess) error = stage();
  };
  then([&] {
    return p.scalar ? sum_slots(b.slots_a, b.grad_a, heads, rows, p.share, stream)
                    : sum_slots(b.slots_a, b.grad_a, state_count(p), rows, 1, stream);
  });
  then([&] { return sum_input(p, c, p.constant_b, b.slots_b, b.grad_b, stream); });
  then([&] { return sum_input(p, c, p.constant_c, b.slots_c, b.grad_c, stream); });
  if (p.d != nullptr) {
    then([&] { return sum_slots(b.slots_d, b.grad_d, channels, rows, 1, stream); });
  }
  if (p.bias != nullptr) {
    then([&] { return sum_slots(b.slots_bias, b.grad_bias, heads, rows, p.share, stream); });
  }
  if (p.share > 1) {
    then([&] {
      return sum_heads(p, static_cast<const float*>(b.grad_delta.data), arguments.grad_delta,
                       stream);
    });
  }
  if (p.paths > 1) {
    then([&] {
      return join_gradients(p, b.grad_out, static_cast<const float*>(b.grad_u.data),
                            static_cast<const float*>(b.y.data), arguments.grad_u, arguments.grad_z,
                            stream);
    });
  }
  return error;
}

}  // namespace saccade::scan_device
