/* Transforms a clip with real models: `clip SOCKET INPUT OUTPUT SHEET`. Prints how many previews
 * there were and the frames of the receipt; then begins anew and cancels at the first preview. */
#define _POSIX_C_SOURCE 200809L

#include "check.h"

#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <unistd.h>

static const unsigned char PNG[] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};

static void *cancel(void *transform) {
  OK(mote_transform_cancel(transform, &error));
  return NULL;
}

int main(int argc, char **argv) {
  mote_client_t *client = NULL;
  mote_transform_args_t args = MOTE_TRANSFORM_ARGS_INIT;
  mote_transform_t *transform = NULL;
  mote_event_t event = MOTE_EVENT_INIT;
  mote_receipt_info_t info = MOTE_RECEIPT_INFO_INIT;
  mote_status_t status;
  pthread_t other;
  int previews = 0, cancelled = 0, input;

  CHECK(argc == 5);
  OK(mote_connect(argv[1], "test", &client, &error));
  args.model = "rife";
  args.frames_max = 16;
  args.width_max = 320;
  args.preview_every = 10;
  REFUSES(mote_transform_clip(client, &args, &transform, &error), "input_fd");
  args.input_fd = 9999;
  REFUSES(mote_transform_clip(client, &args, &transform, &error), "input_fd");
  input = open(argv[2], O_RDONLY);
  args.input_fd = input;
  REFUSES(mote_transform_clip(client, &args, &transform, &error), "output_fd");
  args.output_fd = open(argv[3], O_RDWR | O_CREAT | O_TRUNC, 0600);
  args.tile_side_max = UINT64_MAX;
  REFUSES(mote_transform_clip(client, &args, &transform, &error), "tile_side_max");
  args.tile_side_max = 0;
  args.output_format = 0;
  REFUSES(mote_transform_clip(client, &args, &transform, &error), "output_format");
  args.output_format = MOTE_CLIP_MP4_AV1;
  args.encoder_speed = -2;
  REFUSES(mote_transform_clip(client, &args, &transform, &error), "encoder_speed");
  args.encoder_speed = -1;
  args.contact_sheet_fd = open(argv[4], O_RDWR | O_CREAT | O_TRUNC, 0600);
  CHECK(transform == NULL);

  OK(mote_transform_clip(client, &args, &transform, &error));
  do {
    OK(mote_transform_next(transform, &event, &error));
    if (event.kind == MOTE_EVENT_PREVIEW) {
      CHECK(event.width == 320 && event.height > 0);
      CHECK(event.png_bytes > sizeof PNG && memcmp(event.png, PNG, sizeof PNG) == 0);
      previews++;
    }
    CHECK(event.kind != MOTE_EVENT_NONE);
  } while (event.kind != MOTE_EVENT_DONE);
  OK(mote_receipt_info(event.receipt, &info, &error));
  printf("previews %d frames_in %" PRIu64 " frames_out %" PRIu64 "\n", previews, info.frames_in,
         info.frames_out);
  OK(mote_transform_next(transform, &event, &error));
  CHECK(event.kind == MOTE_EVENT_NONE);
  mote_transform_free(transform);

  /* The daemon had duplicates: these are still ours. */
  CHECK(lseek(input, 0, SEEK_SET) == 0 && ftruncate(args.output_fd, 0) == 0);
  args.frames_max = 0;
  args.preview_every = 1;
  args.contact_sheet_fd = -1;
  OK(mote_transform_clip(client, &args, &transform, &error));
  while ((status = mote_transform_next(transform, &event, NULL)) == MOTE_OK) {
    CHECK(event.kind != MOTE_EVENT_DONE && event.kind != MOTE_EVENT_NONE);
    if (event.kind == MOTE_EVENT_PREVIEW && !cancelled) {
      CHECK(pthread_create(&other, NULL, cancel, transform) == 0);
      cancelled = 1;
    }
  }
  CHECK(status == MOTE_ERROR_CANCELLED && cancelled);
  CHECK(pthread_join(other, NULL) == 0);
  mote_transform_free(transform);
  mote_client_free(client);
  return 0;
}
