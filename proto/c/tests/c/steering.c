/* Sets prompts while a clip is made: `steering SOCKET OUT`. The daemon is scripted, see steering.rs. */
#define _POSIX_C_SOURCE 200809L

#include "check.h"

#include <fcntl.h>

/* An older program knows no event beyond this field, and no kind of it. */
enum { OLDER_EVENT_BYTES = offsetof(mote_event_t, is_taken), STEERS_MAX = 32 };

static void expect(mote_clip_t *clip, mote_event_t *event, int32_t kind) {
  OK(mote_clip_next(clip, event, &error));
  CHECK(event->kind == kind);
}

static void not_taken(mote_clip_t *clip, const char *why) {
  mote_event_t event = MOTE_EVENT_INIT;
  expect(clip, &event, MOTE_EVENT_STEERED);
  CHECK(event.is_taken == 0 && event.from_segment == 0);
  CHECK_TEXT(event.why, why);
  CHECK(event.text == NULL && event.samples == NULL);
}

int main(int argc, char **argv) {
  mote_clip_segment_t shots[4] = {{"a", 0, 0}, {"b", 0, 0}, {"c", 0, 0}, {"d", 0, 0}};
  mote_generate_clip_args_t args = MOTE_GENERATE_CLIP_ARGS_INIT;
  mote_transform_args_t transform = MOTE_TRANSFORM_ARGS_INIT;
  mote_event_t event = MOTE_EVENT_INIT, older = MOTE_EVENT_INIT;
  mote_client_t *client = NULL;
  mote_clip_t *clip = NULL;
  int at;

  CHECK(argc == 3);
  OK(mote_connect(argv[1], "test", &client, &error));
  args.model = "shapes-clip";
  args.segments = shots;
  args.segment_count = 4;
  args.output_fd = open(argv[2], O_RDWR | O_CREAT | O_TRUNC, 0600);
  OK(mote_generate_clip(client, &args, &clip, &error));
  for (at = 0; at < 3; at++) {
    OK(mote_clip_steer(clip, "a green triangle", &error));
  }
  expect(clip, &event, MOTE_EVENT_STEERED);
  CHECK(event.is_taken != 0 && event.from_segment == 2);
  CHECK_TEXT(event.why, "");
  older.size = OLDER_EVENT_BYTES;
  older.from_segment = 4711;
  expect(clip, &older, MOTE_EVENT_STEERED);
  CHECK(older.from_segment == 4711);
  not_taken(clip, "prompt: no segment follows");
  OK(mote_clip_steer(clip, "a green triangle", &error));
  not_taken(clip, "the clip had ended when the prompt came");
  expect(clip, &event, MOTE_EVENT_DONE);
  REFUSES(mote_clip_steer(clip, "a green triangle", &error), "target_request_id");
  mote_clip_free(clip);

  OK(mote_generate_clip(client, &args, &clip, &error));
  for (at = 0; at < STEERS_MAX; at++) {
    OK(mote_clip_steer(clip, "a green triangle", &error));
  }
  FAILS(mote_clip_steer(clip, "a green triangle", &error), MOTE_ERROR_LIMIT_EXCEEDED);
  mote_clip_free(clip);

  transform.model = "rife";
  transform.input_fd = transform.output_fd = args.output_fd;
  OK(mote_transform_clip(client, &transform, &clip, &error));
  REFUSES(mote_clip_steer(clip, "a green triangle", &error), "target_request_id");
  expect(clip, &event, MOTE_EVENT_DONE);
  mote_clip_free(clip);
  mote_client_free(client);
  return 0;
}
