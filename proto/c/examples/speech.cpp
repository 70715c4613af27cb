// Where is somebody speaking? Streams sound through "silero-vad", whose state stays in the daemon.
//
//   speech [SOCKET] < SOUND
//
// SOUND is raw: 16,000 samples a second, mono, 32-bit floats. Prints the chance of speech of each
// 32 ms. What Mote gives is owned by the types below and freed when they go.

#include <mote.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>

namespace mote {

template <auto Free> struct Deleter {
  template <typename Handle> void operator()(Handle *handle) const { Free(handle); }
};
using Client = std::unique_ptr<mote_client_t, Deleter<mote_client_free>>;
using Buffer = std::unique_ptr<mote_buffer_t, Deleter<mote_buffer_free>>;
using Stream = std::unique_ptr<mote_stream_t, Deleter<mote_stream_free>>;

struct Error : std::runtime_error {
  Error(mote_status_t code, const char *message) : std::runtime_error(message), status(code) {}
  mote_status_t status;
};

// Throws when a call failed: `check([&](auto error) { return mote_...(..., error); })`.
template <typename Call> void check(Call call) {
  mote_error_t *raw = nullptr;
  if (call(&raw) != MOTE_OK) {
    std::unique_ptr<mote_error_t, Deleter<mote_error_free>> error(raw);
    throw Error(mote_error_status(error.get()), mote_error_message(error.get()));
  }
}

Client connect(const char *path, const char *name) {
  mote_client_t *client = nullptr;
  check([&](auto error) { return mote_connect(path, name, &client, error); });
  return Client(client);
}

Stream open(const Client &client, const char *model) {
  mote_stream_t *stream = nullptr;
  check([&](auto error) {
    return mote_stream_open(client.get(), model, nullptr, &stream, error);
  });
  return Stream(stream);
}

Buffer buffer(const Stream &stream, std::uint64_t bytes) {
  mote_buffer_t *made = nullptr;
  check([&](auto error) {
    return mote_stream_buffer_create(stream.get(), bytes, &made, error);
  });
  return Buffer(made);
}

} // namespace mote

namespace {

// The model takes this much of the sound before each chunk as well.
constexpr std::size_t CONTEXT = 64;
constexpr std::size_t CHUNK = 512;

void listen(const char *path) {
  const auto client = mote::connect(path, "speech");
  const auto stream = mote::open(client, "silero-vad");
  const auto sound = mote::buffer(stream, (CONTEXT + CHUNK) * sizeof(float));
  const auto chance = mote::buffer(stream, sizeof(float));

  const std::array<std::uint64_t, 2> shape = {1, CONTEXT + CHUNK};
  mote_tensor_t input = {};
  input.name = "input";
  input.dtype = MOTE_DTYPE_F32;
  input.shape = shape.data();
  input.rank = shape.size();
  input.buffer = sound.get();
  const std::array<std::uint64_t, 2> chance_shape = {1, 1};
  mote_target_t output = {};
  output.name = "output";
  output.shape = chance_shape.data();
  output.rank = chance_shape.size();
  output.buffer = chance.get();
  output.bytes = sizeof(float);
  mote_push_args_t push = MOTE_PUSH_ARGS_INIT;
  push.inputs = &input;
  push.input_count = 1;
  push.targets = &output;
  push.target_count = 1;

  // Nothing is copied: sound is read to where the model finds it, the chance comes where it is read.
  auto *samples = static_cast<float *>(mote_buffer_data(sound.get()));
  const auto *speech = static_cast<const float *>(mote_buffer_data(chance.get()));
  while (std::fread(samples + CONTEXT, sizeof(float), CHUNK, stdin) == CHUNK) {
    mote::check([&](auto error) {
      return mote_stream_push(stream.get(), &push, nullptr, error);
    });
    std::printf("%.9g\n", static_cast<double>(*speech));
    std::memcpy(samples, samples + CHUNK, CONTEXT * sizeof(float));
  }

  const mote_receipt_t *receipt = nullptr;
  mote::check([&](auto error) {
    return mote_stream_close(stream.get(), &receipt, error);
  });
  std::fprintf(stderr, "%s\n", mote_receipt_json(receipt));
}

} // namespace

int main(int argc, char **argv) {
  try {
    listen(argc > 1 ? argv[1] : nullptr);
    return EXIT_SUCCESS;
  } catch (const std::exception &error) {
    std::fprintf(stderr, "speech: %s\n", error.what());
    return EXIT_FAILURE;
  }
}
