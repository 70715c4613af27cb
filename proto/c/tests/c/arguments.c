/* Arguments that do not hold, and no daemon: what needs nobody at the other end. */
#include "check.h"

#include <errno.h>

/* Every function takes NULL for its handle; `error` stays optional. */
static void null_handles(void) {
  char *json = (char *)"left";
  mote_limits_t limits = MOTE_LIMITS_INIT;
  mote_output_t output = MOTE_OUTPUT_INIT;
  mote_event_t event = MOTE_EVENT_INIT;
  mote_receipt_info_t info = MOTE_RECEIPT_INFO_INIT;
  mote_infer_args_t infer = MOTE_INFER_ARGS_INIT;
  mote_push_args_t push = MOTE_PUSH_ARGS_INIT;
  mote_generate_args_t generate = MOTE_GENERATE_ARGS_INIT;
  mote_transform_args_t transform = MOTE_TRANSFORM_ARGS_INIT;
  mote_embed_args_t embed = MOTE_EMBED_ARGS_INIT;
  mote_buffer_t *buffer = NULL;
  mote_result_t *result = NULL;
  mote_stream_t *stream = NULL;
  mote_generation_t *generation = NULL;
  mote_generate_clip_args_t generate_clip = MOTE_GENERATE_CLIP_ARGS_INIT;
  mote_label_clip_args_t label_clip = MOTE_LABEL_CLIP_ARGS_INIT;
  mote_transform_t *transformed = NULL;
  mote_clip_t *clip = (mote_clip_t *)&clip;
  const mote_receipt_t *receipt = NULL;

  REFUSES(mote_limits(NULL, &limits, &error), "client");
  REFUSES(mote_models_json(NULL, &json, &error), "client");
  CHECK(json == NULL);
  REFUSES(mote_models_json(NULL, NULL, &error), "json");
  REFUSES(mote_model_json(NULL, "m", &json, &error), "client");
  REFUSES(mote_loaded_model_json(NULL, "m", &json, &error), "client");
  REFUSES(mote_devices_json(NULL, &json, &error), "client");
  REFUSES(mote_probe_devices_json(NULL, &json, &error), "client");
  REFUSES(mote_explain_json(NULL, "m", NULL, &json, &error), "client");
  REFUSES(mote_explain_json(NULL, NULL, NULL, &json, &error), "model");
  REFUSES(mote_measure_json(NULL, "m", NULL, &json, &error), "client");
  REFUSES(mote_measure_json(NULL, NULL, NULL, &json, &error), "model");
  REFUSES(mote_daemon_json(NULL, &json, &error), "client");
  REFUSES(mote_load(NULL, "m", NULL, &error), "client");
  REFUSES(mote_unload(NULL, "m", &error), "client");
  REFUSES(mote_pin(NULL, "m", &error), "client");
  REFUSES(mote_unpin(NULL, "m", &error), "client");
  REFUSES(mote_rescan(NULL, &error), "client");
  REFUSES(mote_buffer_create(NULL, 1, &buffer, &error), "client");
  REFUSES(mote_infer(NULL, &infer, &result, &error), "client");
  REFUSES(mote_stream_open(NULL, "m", NULL, &stream, &error), "client");
  REFUSES(mote_generate(NULL, &generate, &generation, &error), "client");
  REFUSES(mote_transform_clip(NULL, &transform, &transformed, &error), "client");
  REFUSES(mote_generate_clip(NULL, &generate_clip, &clip, &error), "client");
  CHECK(clip == NULL);
  REFUSES(mote_generate_clip(NULL, &generate_clip, NULL, &error), "clip");
  REFUSES(mote_label_clip(NULL, &label_clip, &clip, &error), "client");
  REFUSES(mote_embed(NULL, &embed, &result, &error), "client");
  REFUSES(mote_stream_push(NULL, &push, &result, &error), "stream");
  REFUSES(mote_stream_close(NULL, &receipt, &error), "stream");
  REFUSES(mote_stream_register(NULL, NULL, &error), "stream");
  REFUSES(mote_stream_unregister(NULL, NULL, &error), "stream");
  REFUSES(mote_stream_buffer_create(NULL, 1, &buffer, &error), "stream");
  REFUSES(mote_generation_next(NULL, &event, &error), "generation");
  REFUSES(mote_generation_cancel(NULL, &error), "generation");
  REFUSES(mote_transform_next(NULL, &event, &error), "transform");
  REFUSES(mote_transform_cancel(NULL, &error), "transform");
  REFUSES(mote_clip_next(NULL, &event, &error), "clip");
  REFUSES(mote_clip_cancel(NULL, &error), "clip");
  REFUSES(mote_clip_pause(NULL, &error), "clip");
  REFUSES(mote_clip_resume(NULL, &error), "clip");
  REFUSES(mote_clip_steer(NULL, "p", &error), "clip");
  REFUSES(mote_result_output(NULL, 0, &output, &error), "result");
  REFUSES(mote_result_find(NULL, "x", &output, &error), "result");
  REFUSES(mote_receipt_info(NULL, &info, &error), "receipt");
  CHECK(mote_rescan(NULL, NULL) == MOTE_ERROR_INVALID);

  CHECK(mote_server_version(NULL) == NULL);
  CHECK(mote_buffer_data(NULL) == NULL && mote_buffer_bytes(NULL) == 0);
  CHECK(mote_result_output_count(NULL) == 0 && mote_result_receipt(NULL) == NULL);
  CHECK(mote_result_compute_us(NULL) == 0 && mote_result_bytes_copied(NULL) == 0);
  CHECK(mote_result_bytes_converted(NULL) == 0);
  CHECK(mote_receipt_json(NULL) == NULL && mote_stream_json(NULL) == NULL);

  mote_client_free(NULL);
  mote_buffer_free(NULL);
  mote_result_free(NULL);
  mote_stream_free(NULL);
  mote_generation_free(NULL);
  mote_transform_free(NULL);
  mote_clip_free(NULL);
  mote_error_free(NULL);
  mote_string_free(NULL);
}

static void no_daemon(void) {
  mote_client_t *client = (mote_client_t *)&client;
  mote_error_t *error = NULL;
  int64_t number = -1;

  REFUSES(mote_connect("/nowhere/mote.sock", NULL, &client, &error), "name");
  REFUSES(mote_connect("/nowhere/mote.sock", "test", NULL, &error), "client");
  REFUSES(mote_connect("/nowhere/\xff", "test", &client, &error), "path");

  CHECK(mote_connect("/nowhere/mote.sock", "test", &client, &error) ==
        MOTE_ERROR_CANNOT_CONNECT);
  CHECK(client == NULL);
  CHECK(mote_error_status(error) == MOTE_ERROR_CANNOT_CONNECT);
  CHECK_TEXT(mote_error_text(error, "path"), "/nowhere/mote.sock");
  CHECK(mote_error_number(error, "errno", &number) == 1 && number == ENOENT);
  CHECK(strstr(mote_error_message(error), "cannot connect to /nowhere/mote.sock: ") != NULL);
  CHECK(strstr(mote_error_json(error), "\"status\":\"cannot_connect\"") != NULL);
  number = 7;
  CHECK(mote_error_number(error, "path", &number) == 0 && number == 7);
  CHECK(mote_error_number(error, "errno", NULL) == 0);
  CHECK(mote_error_text(error, "errno") == NULL);
  CHECK(mote_error_text(error, NULL) == NULL);
  mote_error_free(error);

  /* Nobody wants to know why. */
  CHECK(mote_connect("/nowhere/mote.sock", "test", &client, NULL) == MOTE_ERROR_CANNOT_CONNECT);
}

static void no_error(void) {
  int64_t number = 0;
  CHECK(mote_error_status(NULL) == MOTE_OK);
  CHECK(mote_error_message(NULL) == NULL && mote_error_json(NULL) == NULL);
  CHECK(mote_error_text(NULL, "field") == NULL);
  CHECK(mote_error_number(NULL, "signal", &number) == 0);
  CHECK_TEXT(mote_status_name(MOTE_OK), "ok");
  CHECK_TEXT(mote_status_name(MOTE_ERROR_NO_BACKEND), "no_backend");
  CHECK_TEXT(mote_status_name(9999), "unknown");
  CHECK(mote_abi_version() == MOTE_ABI_VERSION);
  CHECK(strchr(mote_version(), '.') != NULL);
}

int main(void) {
  no_error();
  null_handles();
  no_daemon();
  return 0;
}
