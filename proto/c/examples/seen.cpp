// What is seen in a clip? Prints what a model finds, frame by frame.
//
//   seen [-s SOCKET] MODEL CLIP
//
// Each line has the time in seconds, a class and its score, and the box where it is seen, if it is
// seen in one place: left, upper, right and lower edge in pixels.

#include <mote.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fcntl.h>
#include <memory>
#include <stdexcept>
#include <unistd.h>

namespace mote {

template <auto Free> struct Deleter {
  template <typename Handle> void operator()(Handle *handle) const { Free(handle); }
};
using Client = std::unique_ptr<mote_client_t, Deleter<mote_client_free>>;
using Clip = std::unique_ptr<mote_clip_t, Deleter<mote_clip_free>>;

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

Clip label(const Client &client, const mote_label_clip_args_t &args) {
  mote_clip_t *clip = nullptr;
  check([&](auto error) { return mote_label_clip(client.get(), &args, &clip, error); });
  return Clip(clip);
}

} // namespace mote

namespace {

constexpr int EXIT_USAGE = 2;

// A file that is closed when it goes.
class File {
public:
  explicit File(const char *path) : fd_(open(path, O_RDONLY | O_CLOEXEC)) {
    if (fd_ < 0) {
      throw std::runtime_error("the clip cannot be opened");
    }
  }
  File(const File &) = delete;
  File &operator=(const File &) = delete;
  ~File() { close(fd_); }
  int fd() const { return fd_; }

private:
  int fd_;
};

// Elements of the library's, which hold until the next event is asked for.
template <typename Element> struct Elements {
  const Element *first;
  std::size_t count;
  const Element *begin() const { return first; }
  const Element *end() const { return first + count; }
};

void print(const mote_event_t &event) {
  const double seconds = static_cast<double>(event.time_us) / 1e6;
  for (const auto &label : Elements<mote_label_t>{event.labels, event.label_count}) {
    std::printf("%.3f %s %.3f\n", seconds, label.label, static_cast<double>(label.score));
  }
  for (const auto &box : Elements<mote_label_box_t>{event.boxes, event.box_count}) {
    std::printf("%.3f %s %.3f %.1f %.1f %.1f %.1f\n", seconds, box.label,
                static_cast<double>(box.score), static_cast<double>(box.x0),
                static_cast<double>(box.y0), static_cast<double>(box.x1),
                static_cast<double>(box.y1));
  }
}

void look(const char *path, const char *model, const char *clip_path) {
  const auto client = mote::connect(path, "seen");
  const File file(clip_path);
  mote_label_clip_args_t args = MOTE_LABEL_CLIP_ARGS_INIT;
  args.model = model;
  args.input_fd = file.fd();
  const auto clip = mote::label(client, args);
  mote_event_t event = MOTE_EVENT_INIT;
  do {
    mote::check([&](auto error) { return mote_clip_next(clip.get(), &event, error); });
    if (event.kind == MOTE_EVENT_LABELS) {
      print(event);
    }
  } while (event.kind != MOTE_EVENT_DONE);
  std::fprintf(stderr, "%s\n", mote_receipt_json(event.receipt));
}

} // namespace

int main(int argc, char **argv) {
  const char *path = nullptr;
  int option;
  while ((option = getopt(argc, argv, "s:")) == 's') {
    path = optarg;
  }
  if (option != -1 || argc - optind != 2) {
    std::fputs("usage: seen [-s SOCKET] MODEL CLIP\n", stderr);
    return EXIT_USAGE;
  }
  try {
    look(path, argv[optind], argv[optind + 1]);
    return EXIT_SUCCESS;
  } catch (const std::exception &error) {
    std::fprintf(stderr, "seen: %s\n", error.what());
    return EXIT_FAILURE;
  }
}
