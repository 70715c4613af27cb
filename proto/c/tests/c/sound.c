/* Makes a clip with sound: `sound SOCKET OUT`. The daemon is scripted, see sound.rs. */
#define _POSIX_C_SOURCE 200809L

#include "check.h"

#include <fcntl.h>

/* An older program knows no event beyond this field, and no kind of it. */
enum { OLDER_EVENT_BYTES = offsetof(mote_event_t, samples) };

static void expect(mote_clip_t *clip, mote_event_t *event, int32_t kind) {
  OK(mote_clip_next(clip, event, &error));
  CHECK(event->kind == kind);
}

static void hear(mote_clip_t *clip, uint64_t from, size_t count) {
  mote_event_t event = MOTE_EVENT_INIT;
  size_t at;
  expect(clip, &event, MOTE_EVENT_AUDIO);
  CHECK(event.sample_index == from && event.sample_count == count);
  CHECK(event.sample_rate == 24000 && event.channels == 2);
  for (at = 0; at < 2 * count; at++) {
    CHECK(event.samples[at] == ((float)(2 * from + at) - 8.0f) / 8.0f);
  }
  CHECK(event.pixels == NULL && event.text == NULL && event.frame_index == 0);
}

int main(int argc, char **argv) {
  mote_clip_segment_t shot = {"rain on a roof", 0, 0};
  mote_generate_clip_args_t args = MOTE_GENERATE_CLIP_ARGS_INIT;
  mote_event_t event = MOTE_EVENT_INIT, older = MOTE_EVENT_INIT;
  mote_receipt_info_t receipt = MOTE_RECEIPT_INFO_INIT;
  mote_client_t *client = NULL;
  mote_clip_t *clip = NULL;

  CHECK(argc == 3);
  OK(mote_connect(argv[1], "test", &client, &error));
  args.model = "waves";
  args.segments = &shot;
  args.segment_count = 1;
  args.send_audio = 1;
  args.output_fd = open(argv[2], O_RDWR | O_CREAT | O_TRUNC, 0600);
  OK(mote_generate_clip(client, &args, &clip, &error));
  hear(clip, 0, 3);
  hear(clip, 3, 4);
  older.size = OLDER_EVENT_BYTES;
  older.sample_count = 4711;
  expect(clip, &older, MOTE_EVENT_AUDIO);
  CHECK(older.sample_count == 4711);
  expect(clip, &event, MOTE_EVENT_DONE);
  OK(mote_receipt_info(event.receipt, &receipt, &error));
  CHECK(receipt.audio_samples_out == 8 && receipt.audio_sample_rate == 24000);
  CHECK(receipt.audio_channels == 2);
  CHECK_TEXT(receipt.audio_codec, "opus");
  CHECK(strstr(mote_receipt_json(event.receipt), "\"audio_codec\":\"opus\"") != NULL);
  mote_clip_free(clip);

  /* What is no sound ends the work; nobody is handed it. */
  OK(mote_generate_clip(client, &args, &clip, &error));
  FAILS(mote_clip_next(clip, &event, &error), MOTE_ERROR_PROTOCOL);
  CHECK(event.kind == MOTE_EVENT_NONE && event.samples == NULL);
  mote_clip_free(clip);
  mote_client_free(client);
  return 0;
}
