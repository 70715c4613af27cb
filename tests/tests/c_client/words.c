/* Makes clips of words with a real model: `words SOCKET OUT KEPT`. OUT gets the frames as they are;
 * KEPT is a checkpoint. Prints the frames and steps of the receipt; then halts the same clip and
 * lets it go on, leaves it and goes on from the checkpoint, and steers a clip of two shots. */
#define _POSIX_C_SOURCE 200809L

#include "check.h"

#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <time.h>
#include <unistd.h>

enum { SIDE = 64, FRAME_BYTES = 3 * SIDE * SIDE, FRAMES_MAX = 64 };

static const unsigned char PNG[] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};

/* What happened. */
struct seen {
  unsigned char *pixels; /* of FRAMES_MAX frames, or NULL */
  uint64_t frames;
  uint64_t previews;
  uint64_t steps; /* that progress told of */
  uint32_t steered_from; /* the first shot with another prompt */
  mote_receipt_info_t receipt;
};

/* Halts a clip, and lets it go on after a while. */
static void *halt(void *clip) {
  const struct timespec a_while = {0, 200 * 1000 * 1000};
  OK(mote_clip_pause(clip, &error));
  nanosleep(&a_while, NULL);
  OK(mote_clip_resume(clip, &error));
  return NULL;
}

static void take(struct seen *seen, const mote_event_t *event) {
  switch (event->kind) {
  case MOTE_EVENT_PROGRESS:
    if (event->stage == MOTE_STAGE_DENOISE) {
      CHECK(event->done >= seen->steps);
      seen->steps = event->done;
    }
    break;
  case MOTE_EVENT_PREVIEW:
    CHECK(event->png_bytes > sizeof PNG && memcmp(event->png, PNG, sizeof PNG) == 0);
    seen->previews++;
    break;
  case MOTE_EVENT_FRAME:
    CHECK(event->width == SIDE && event->height == SIDE && event->pixel_bytes == FRAME_BYTES);
    CHECK(event->frame_index == seen->frames && seen->frames < FRAMES_MAX);
    memcpy(seen->pixels + FRAME_BYTES * seen->frames, event->pixels, FRAME_BYTES);
    seen->frames++;
    break;
  case MOTE_EVENT_DONE:
    OK(mote_receipt_info(event->receipt, &seen->receipt, &error));
    break;
  case MOTE_EVENT_STEERED:
    CHECK(event->is_taken && event->why[0] == '\0');
    seen->steered_from = event->from_segment;
    break;
  default: CHECK(event->kind == MOTE_EVENT_ACCEPTED);
  }
}

/* Reads a clip to its end; `halted` is halted in its middle. */
static void follow(mote_clip_t *clip, struct seen *seen, int halted) {
  mote_event_t event = MOTE_EVENT_INIT;
  pthread_t other;
  int is_halted = 0;
  do {
    OK(mote_clip_next(clip, &event, &error));
    take(seen, &event);
    if (halted && !is_halted && seen->steps > 0) {
      CHECK(pthread_create(&other, NULL, halt, clip) == 0);
      is_halted = 1;
    }
  } while (event.kind != MOTE_EVENT_DONE);
  CHECK(is_halted == halted);
  if (halted) {
    CHECK(pthread_join(other, NULL) == 0);
  }
  /* What is said to work that is over does no harm. */
  OK(mote_clip_pause(clip, &error));
  OK(mote_clip_next(clip, &event, &error));
  CHECK(event.kind == MOTE_EVENT_NONE);
  CHECK(seen->receipt.step_time_count == seen->receipt.steps);
  CHECK(seen->receipt.step_times_us != NULL && seen->receipt.scheduler[0] != '\0');
}

static void refusals(const mote_client_t *client, mote_generate_clip_args_t args) {
  mote_clip_segment_t shot = {NULL, 0, 0};
  mote_clip_t *clip = NULL;
  int output = args.output_fd;
  args.segments = NULL;
  REFUSES(mote_generate_clip(client, &args, &clip, &error), "segments");
  args.segment_count = 0;
  REFUSES(mote_generate_clip(client, &args, &clip, &error), "segments");
  args.segments = &shot;
  args.segment_count = 1;
  REFUSES(mote_generate_clip(client, &args, &clip, &error), "segments[0].prompt");
  shot.prompt = "a square";
  shot.flags = 1;
  REFUSES(mote_generate_clip(client, &args, &clip, &error), "segments[0].flags");
  shot.flags = 0;
  args.output_fd = -1;
  REFUSES(mote_generate_clip(client, &args, &clip, &error), "output_fd");
  args.output_fd = output;
  args.first_image_fd = 9999;
  REFUSES(mote_generate_clip(client, &args, &clip, &error), "first_image_fd");
  args.first_image_fd = -1;
  args.output_format = 8;
  REFUSES(mote_generate_clip(client, &args, &clip, &error), "output_format");
  args.output_format = MOTE_CLIP_WEBP;
  args.encoder_speed = -2;
  REFUSES(mote_generate_clip(client, &args, &clip, &error), "encoder_speed");
  args.encoder_speed = -1;
  args.flags = 1;
  REFUSES(mote_generate_clip(client, &args, &clip, &error), "flags");
  CHECK(clip == NULL);
}

/* Cancels a clip at its second step. */
static void leave(const mote_client_t *client, const mote_generate_clip_args_t *args) {
  mote_event_t event = MOTE_EVENT_INIT;
  mote_clip_t *clip = NULL;
  mote_status_t status;
  int cancelled = 0;
  OK(mote_generate_clip(client, args, &clip, &error));
  while ((status = mote_clip_next(clip, &event, NULL)) == MOTE_OK) {
    CHECK(event.kind != MOTE_EVENT_DONE);
    if (event.kind == MOTE_EVENT_PREVIEW && event.frame_index >= 2 && !cancelled) {
      OK(mote_clip_cancel(clip, &error));
      cancelled = 1;
    }
  }
  CHECK(status == MOTE_ERROR_CANCELLED && cancelled);
  mote_clip_free(clip);
}

int main(int argc, char **argv) {
  mote_clip_segment_t shots[] = {{"a red square moves left", 0, 0},
                                 {"a red square moves right", 0, 0}};
  mote_client_t *client = NULL;
  mote_generate_clip_args_t args = MOTE_GENERATE_CLIP_ARGS_INIT;
  mote_clip_t *clip = NULL;
  struct seen whole = {0}, other = {0};
  uint64_t bytes;

  CHECK(argc == 4);
  whole.receipt.size = other.receipt.size = sizeof(mote_receipt_info_t);
  whole.pixels = malloc(FRAMES_MAX * FRAME_BYTES);
  other.pixels = malloc(FRAMES_MAX * FRAME_BYTES);
  CHECK(whole.pixels != NULL && other.pixels != NULL);
  OK(mote_connect(argv[1], "test", &client, &error));
  args.model = "shapes-clip";
  args.segments = shots;
  args.segment_count = 1;
  /* Enough that there are some left when it is halted or cancelled. */
  args.steps = 24;
  args.seed = 7;
  args.has_seed = 1;
  args.send_frames = 1;
  /* This model makes none. */
  args.send_audio = 1;
  args.preview_every = 1;
  args.output_format = MOTE_CLIP_RAW_RGB8;
  args.output_fd = open(argv[2], O_RDWR | O_CREAT | O_TRUNC, 0600);
  refusals(client, args);

  OK(mote_generate_clip(client, &args, &clip, &error));
  follow(clip, &whole, 0);
  mote_clip_free(clip);
  bytes = FRAME_BYTES * whole.frames;
  CHECK(whole.receipt.frames_out == whole.frames && whole.receipt.seed == 7);
  CHECK(whole.receipt.audio_samples_out == 0);
  CHECK(lseek(args.output_fd, 0, SEEK_END) == (off_t)bytes);
  CHECK(pread(args.output_fd, other.pixels, bytes, 0) == (ssize_t)bytes);
  CHECK(memcmp(whole.pixels, other.pixels, bytes) == 0);
  CHECK(whole.previews > 0 && whole.steps > 0);
  printf("frames %" PRIu64 " steps %" PRIu64 "\n", whole.frames, whole.receipt.steps);

  CHECK(ftruncate(args.output_fd, 0) == 0);
  OK(mote_generate_clip(client, &args, &clip, &error));
  follow(clip, &other, 1);
  mote_clip_free(clip);
  CHECK(other.frames == whole.frames && memcmp(whole.pixels, other.pixels, bytes) == 0);

  args.checkpoint_fd = open(argv[3], O_RDWR | O_CREAT | O_TRUNC, 0600);
  CHECK(ftruncate(args.output_fd, 0) == 0);
  leave(client, &args);
  CHECK(ftruncate(args.output_fd, 0) == 0);
  other.frames = other.steps = 0;
  OK(mote_generate_clip(client, &args, &clip, &error));
  follow(clip, &other, 0);
  mote_clip_free(clip);
  CHECK(other.receipt.resumed_steps >= 1);
  CHECK(other.frames == whole.frames && memcmp(whole.pixels, other.pixels, bytes) == 0);

  args.checkpoint_fd = -1;
  args.segment_count = 2;
  CHECK(ftruncate(args.output_fd, 0) == 0);
  other.frames = other.steps = 0;
  OK(mote_generate_clip(client, &args, &clip, &error));
  REFUSES(mote_clip_steer(clip, NULL, &error), "prompt");
  OK(mote_clip_steer(clip, "a blue disc grows", &error));
  other.steered_from = 0;
  follow(clip, &other, 0);
  CHECK(other.steered_from == 1);
  mote_clip_free(clip);
  CHECK(other.frames > whole.frames && memcmp(whole.pixels, other.pixels, bytes) == 0);

  /* The same as if the second shot had been asked for so. */
  shots[1].prompt = "a blue disc grows";
  CHECK(ftruncate(args.output_fd, 0) == 0);
  whole.frames = whole.steps = 0;
  OK(mote_generate_clip(client, &args, &clip, &error));
  follow(clip, &whole, 0);
  mote_clip_free(clip);
  bytes = FRAME_BYTES * whole.frames;
  CHECK(other.frames == whole.frames && memcmp(whole.pixels, other.pixels, bytes) == 0);

  free(whole.pixels);
  free(other.pixels);
  mote_client_free(client);
  return 0;
}
