/* A C program against a daemon with scripted models. `session PART SOCKET` plays one part. */
#define _POSIX_C_SOURCE 200809L

#include "check.h"

#include <pthread.h>

static const uint64_t SHAPE[] = {1, 4};
static const float NUMBERS[] = {1, 2, 3, 4};

/* Struct of a program that was built against a later header. */
typedef struct later_options {
  mote_options_t known;
  uint64_t unknown;
} later_options_t;

static mote_client_t *connect_to(const char *path) {
  mote_client_t *client = NULL;
  OK(mote_connect(path, "test", &client, &error));
  CHECK(client != NULL);
  return client;
}

static mote_tensor_t numbers(void) {
  mote_tensor_t tensor = {0};
  tensor.name = "x";
  tensor.dtype = MOTE_DTYPE_F32;
  tensor.shape = SHAPE;
  tensor.rank = 2;
  tensor.data = NUMBERS;
  tensor.bytes = sizeof NUMBERS;
  return tensor;
}

static void check_output(const mote_output_t *output) {
  const float *values = output->data;
  CHECK_TEXT(output->name, "y");
  CHECK(output->dtype == MOTE_DTYPE_F32 && output->rank == 2);
  CHECK(output->shape[0] == 1 && output->shape[1] == 4);
  CHECK(output->bytes == sizeof NUMBERS && (uintptr_t)output->data % 8 == 0);
  for (int at = 0; at < 4; at++) {
    CHECK(values[at] == NUMBERS[at] + 1);
  }
}

static void reports(const char *path) {
  mote_client_t *client = connect_to(path);
  mote_limits_t limits = MOTE_LIMITS_INIT;
  char *json = NULL;

  CHECK(strchr(mote_server_version(client), '.') != NULL);
  OK(mote_limits(client, &limits, &error));
  CHECK(limits.size == sizeof limits && limits.inline_bytes_max == 65536);
  CHECK(limits.buffers_max > 0 && limits.credit_max > 0);

  OK(mote_models_json(client, &json, &error));
  CHECK(json[0] == '[' && strstr(json, "\"name\":\"add\"") != NULL);
  mote_string_free(json);
  OK(mote_model_json(client, "add", &json, &error));
  CHECK(strstr(json, "\"inputs\":[]") != NULL);
  mote_string_free(json);
  OK(mote_loaded_model_json(client, "add", &json, &error));
  CHECK(strstr(json, "\"inputs\":[{\"name\":\"x\",\"dtype\":\"f32\",\"shape\":[1,null]}]") !=
        NULL);
  mote_string_free(json);
  OK(mote_devices_json(client, &json, &error));
  CHECK(strstr(json, "\"provider\":\"fake-cpu\"") != NULL);
  mote_string_free(json);
  OK(mote_explain_json(client, "add", NULL, &json, &error));
  CHECK(strstr(json, "\"chosen\":{") != NULL);
  mote_string_free(json);
  OK(mote_measure_json(client, "add", NULL, &json, &error));
  CHECK(strstr(json, "\"trials\":[") != NULL);
  mote_string_free(json);
  OK(mote_daemon_json(client, &json, &error));
  CHECK(strstr(json, "\"connections\":1") != NULL);
  mote_string_free(json);

  OK(mote_pin(client, "add", &error));
  OK(mote_unpin(client, "add", &error));
  OK(mote_unload(client, "add", &error));
  OK(mote_load(client, "add", NULL, &error));
  OK(mote_rescan(client, &error));
  OK(mote_probe_devices_json(client, &json, &error));
  mote_string_free(json);

  json = (char *)path;
  FAILS(mote_model_json(client, "nobody", &json, &error), MOTE_ERROR_MODEL_NOT_FOUND);
  CHECK(json == NULL);
  REFUSES(mote_load(client, NULL, NULL, &error), "model");
  OK(mote_unload(client, "add", &error));
  mote_client_free(client);
}

static void options(const char *path) {
  mote_client_t *client = connect_to(path);
  mote_options_t given = MOTE_OPTIONS_INIT;
  later_options_t later = {MOTE_OPTIONS_INIT, 0};
  mote_error_t *why = NULL;

  given.priority = MOTE_PRIORITY_INTERACTIVE;
  given.require_backend = "fake";
  given.deadline_ms = 60000;
  OK(mote_load(client, "add", &given, &error));
  given.priority = 4;
  REFUSES(mote_load(client, "add", &given, &error), "options.priority");
  given.priority = MOTE_PRIORITY_DEFAULT;
  given.require_provider = "\xc3(";
  REFUSES(mote_load(client, "add", &given, &error), "options.require_provider");
  given.require_provider = NULL;

  given.require_backend = "tflite";
  CHECK(mote_load(client, "add", &given, &why) == MOTE_ERROR_NO_BACKEND);
  CHECK(strstr(mote_error_text(why, "rejected"), "\"reason\":{\"code\":") != NULL);
  CHECK(strstr(mote_error_json(why), "\"rejected\":[{") != NULL);
  mote_error_free(why);
  given.require_backend = NULL;

  given.size = sizeof given - 8;
  REFUSES(mote_load(client, "add", &given, &error), "options.size");
  given.size = 0;
  REFUSES(mote_load(client, "add", &given, &error), "options.size");
  given.size = SIZE_MAX;
  REFUSES(mote_load(client, "add", &given, &error), "options.size");

  /* A later program does not use what this library does not know, or it does. */
  later.known.size = sizeof later;
  OK(mote_load(client, "add", &later.known, &error));
  later.unknown = 1;
  REFUSES(mote_load(client, "add", &later.known, &error), "options");
  mote_client_free(client);
}

static void check_run(const mote_result_t *result, int copied) {
  mote_output_t output = MOTE_OUTPUT_INIT;
  mote_receipt_info_t info = MOTE_RECEIPT_INFO_INIT;
  struct {
    mote_receipt_info_t known;
    uint64_t unknown;
  } later = {MOTE_RECEIPT_INFO_INIT, 7};
  const mote_receipt_t *receipt = mote_result_receipt(result);

  if (copied) {
    CHECK(mote_result_output_count(result) == 1);
    OK(mote_result_output(result, 0, &output, &error));
    check_output(&output);
    CHECK(!output.in_buffer);
    OK(mote_result_find(result, "y", &output, &error));
    check_output(&output);
  }
  REFUSES(mote_result_output(result, 1, &output, &error), "index");
  REFUSES(mote_result_find(result, "z", &output, &error), "name");
  REFUSES(mote_result_find(result, NULL, &output, &error), "name");
  REFUSES(mote_result_find(result, "y", NULL, &error), "output");

  OK(mote_receipt_info(receipt, &info, &error));
  CHECK_TEXT(info.model, "add");
  CHECK_TEXT(info.backend, "fake");
  CHECK_TEXT(info.device_kind, "cpu");
  CHECK(info.local && info.steps == 1 && info.total_us > 0 && !info.has_seed);
  CHECK(mote_result_compute_us(result) == info.compute_us);
  CHECK(mote_result_bytes_copied(result) == info.bytes_copied);
  CHECK(strstr(mote_receipt_json(receipt), "\"model\":\"add\"") != NULL);
  CHECK(strstr(mote_receipt_json(receipt), "\"placement\":[{") != NULL);
  /* What this library does not know becomes 0. */
  later.known.size = sizeof later;
  OK(mote_receipt_info(receipt, &later.known, &error));
  CHECK(later.unknown == 0 && later.known.size == sizeof later);
  CHECK_TEXT(later.known.model, "add");
  /* What was there first is not left out. */
  info.size = offsetof(mote_receipt_info_t, verification) - 8;
  REFUSES(mote_receipt_info(receipt, &info, &error), "info.size");
}

static void tensors(const char *path) {
  mote_client_t *client = connect_to(path);
  mote_tensor_t input = numbers();
  mote_target_t target = {0};
  mote_infer_args_t args = MOTE_INFER_ARGS_INIT;
  mote_buffer_t *in = NULL, *out = NULL, *none = NULL;
  mote_result_t *result = NULL;
  mote_output_t output = MOTE_OUTPUT_INIT;
  float *content;

  args.model = "add";
  args.inputs = &input;
  args.input_count = 1;
  OK(mote_infer(client, &args, &result, &error));
  check_run(result, 1);
  mote_result_free(result);

  /* From a buffer to a buffer. */
  OK(mote_buffer_create(client, 8192, &in, &error));
  OK(mote_buffer_create(client, 8192, &out, &error));
  CHECK(mote_buffer_bytes(in) == 8192 && (uintptr_t)mote_buffer_data(in) % 64 == 0);
  content = mote_buffer_data(in);
  CHECK(content[0] == 0 && content[2047] == 0);
  memcpy(content + 16, NUMBERS, sizeof NUMBERS);
  input.data = NULL;
  input.bytes = 0;
  input.buffer = in;
  input.offset = 64;
  target.name = "y";
  target.buffer = out;
  target.offset = 4096;
  target.bytes = sizeof NUMBERS;
  target.shape = SHAPE;
  target.rank = 2;
  args.targets = &target;
  args.target_count = 1;
  OK(mote_infer(client, &args, &result, &error));
  check_run(result, 0);
  content = (float *)mote_buffer_data(out) + 1024;
  CHECK(content[0] == 2 && content[3] == 5 && content[4] == 0);
  if (mote_result_output_count(result) == 1) {
    OK(mote_result_find(result, "y", &output, &error));
    check_output(&output);
    CHECK(output.in_buffer && output.data == content);
  }
  mote_result_free(result);
  memset(content, 0, sizeof NUMBERS);
  OK(mote_infer(client, &args, NULL, &error));
  CHECK(content[0] == 2 && content[3] == 5);

  /* What does not hold is refused by name, here or by the daemon. */
  input.data = NUMBERS;
  REFUSES(mote_infer(client, &args, &result, &error), "inputs[0].data");
  CHECK(result == NULL);
  input.data = NULL;
  input.offset = 8;
  FAILS(mote_infer(client, &args, &result, &error), MOTE_ERROR_INVALID);
  input.offset = 8192;
  FAILS(mote_infer(client, &args, &result, &error), MOTE_ERROR_INVALID);
  input = numbers();
  input.bytes = 12;
  FAILS(mote_infer(client, &args, &result, &error), MOTE_ERROR_INVALID);
  input.bytes = SIZE_MAX;
  REFUSES(mote_infer(client, &args, &result, &error), "inputs[0].data");
  input = numbers();
  input.data = NULL;
  REFUSES(mote_infer(client, &args, &result, &error), "inputs[0].data");
  input = numbers();
  input.dtype = MOTE_DTYPE_I32;
  FAILS(mote_infer(client, &args, &result, &error), MOTE_ERROR_INVALID);
  input.dtype = 99;
  REFUSES(mote_infer(client, &args, &result, &error), "inputs[0].dtype");
  input = numbers();
  input.rank = 1;
  FAILS(mote_infer(client, &args, &result, &error), MOTE_ERROR_INVALID);
  input = numbers();
  input.shape = NULL;
  REFUSES(mote_infer(client, &args, &result, &error), "inputs[0].shape");
  input.shape = (const uint64_t *)((uintptr_t)SHAPE + 1);
  REFUSES(mote_infer(client, &args, &result, &error), "inputs[0].shape");
  input = numbers();
  input.name = NULL;
  REFUSES(mote_infer(client, &args, &result, &error), "inputs[0].name");
  input = numbers();
  input.reserved[1] = 1;
  REFUSES(mote_infer(client, &args, &result, &error), "inputs[0].reserved");
  input = numbers();
  target.buffer = NULL;
  REFUSES(mote_infer(client, &args, &result, &error), "targets[0].buffer");
  target.buffer = out;
  target.flags = 1;
  REFUSES(mote_infer(client, &args, &result, &error), "targets[0].flags");
  target.flags = 0;
  args.inputs = NULL;
  REFUSES(mote_infer(client, &args, &result, &error), "inputs");
  args.inputs = &input;
  args.model = NULL;
  REFUSES(mote_infer(client, &args, &result, &error), "model");
  args.model = "nobody";
  FAILS(mote_infer(client, &args, &result, &error), MOTE_ERROR_MODEL_NOT_FOUND);
  REFUSES(mote_infer(client, NULL, &result, &error), "args");
  none = out;
  REFUSES(mote_buffer_create(client, 0, &none, &error), "bytes");
  CHECK(none == NULL);
  FAILS(mote_buffer_create(client, (uint64_t)1 << 62, &none, &error), MOTE_ERROR_NO_MEMORY);
  mote_buffer_free(in);
  mote_client_free(client);
  mote_buffer_free(out);
}

static void refusals(const char *path) {
  mote_client_t *client = connect_to(path);
  mote_options_t hurried = MOTE_OPTIONS_INIT;
  mote_tensor_t input = numbers();
  mote_infer_args_t args = MOTE_INFER_ARGS_INIT;
  mote_error_t *why = NULL;
  int64_t number = 0;

  args.inputs = &input;
  args.input_count = 1;
  args.model = "ad";
  CHECK(mote_infer(client, &args, NULL, &why) == MOTE_ERROR_MODEL_NOT_FOUND);
  CHECK_TEXT(mote_error_text(why, "model"), "ad");
  CHECK_TEXT(mote_error_text(why, "similar"), "[\"add\"]");
  mote_error_free(why);

  args.model = "slow";
  hurried.deadline_ms = 200;
  args.options = &hurried;
  CHECK(mote_infer(client, &args, NULL, &why) == MOTE_ERROR_DEADLINE_EXCEEDED);
  CHECK(mote_error_number(why, "deadline_ms", &number) && number == 200);
  mote_error_free(why);

  args.model = "deadly";
  args.options = NULL;
  CHECK(mote_infer(client, &args, NULL, &why) == MOTE_ERROR_WORKER_DIED);
  CHECK(mote_error_number(why, "signal", &number) && number == 6);
  CHECK(strstr(mote_error_json(why), "\"signal\":6") != NULL);
  mote_error_free(why);

  args.model = "huge";
  CHECK(mote_infer(client, &args, NULL, &why) == MOTE_ERROR_OVER_BUDGET);
  CHECK(mote_error_number(why, "need_bytes", &number) && number > 1000000000);
  CHECK(mote_error_number(why, "have_bytes", &number) && number > 0);
  mote_error_free(why);
  mote_client_free(client);
}

/* A frame for `x`, which is no picture: what the struct says arrives, and what does not hold does not. */
static void frames_of(const mote_stream_t *stream, const mote_buffer_t *buffer) {
  mote_frame_t frame = {0};
  mote_push_args_t push = MOTE_PUSH_ARGS_INIT;
  mote_error_t *why = NULL;

  push.frames = &frame;
  push.frame_count = 1;
  REFUSES(mote_stream_push(stream, &push, NULL, &error), "frames[0].buffer");
  frame.buffer = buffer;
  REFUSES(mote_stream_push(stream, &push, NULL, &error), "frames[0].name");
  frame.name = "x";
  REFUSES(mote_stream_push(stream, &push, NULL, &error), "frames[0].format");
  frame.format = MOTE_FRAME_NV12;
  frame.matrix = MOTE_COLOR_MATRIX_BT2020 + 1;
  REFUSES(mote_stream_push(stream, &push, NULL, &error), "frames[0].matrix");
  frame.matrix = MOTE_COLOR_MATRIX_BT709;
  frame.range = -1;
  REFUSES(mote_stream_push(stream, &push, NULL, &error), "frames[0].range");
  frame.range = MOTE_COLOR_RANGE_FULL;
  frame.plane_count = 4;
  REFUSES(mote_stream_push(stream, &push, NULL, &error), "frames[0].plane_count");
  frame.plane_count = 2;
  frame.reserved[1] = 1;
  REFUSES(mote_stream_push(stream, &push, NULL, &error), "frames[0].reserved");
  frame.reserved[1] = 0;
  REFUSES(mote_stream_push(stream, &push, NULL, &error), "frames[0].width");
  frame.width = 4;
  frame.height = 2;
  frame.strides[0] = frame.strides[1] = 4;
  frame.offsets[1] = 8;
  CHECK(mote_stream_push(stream, &push, NULL, &why) == MOTE_ERROR_INVALID);
  CHECK(strcmp(mote_error_text(why, "field"), "frames[x].name") == 0);
  CHECK(strstr(mote_error_text(why, "why"), "[[input]]") != NULL);
  mote_error_free(why);
  push.frame_count = 0;
  push.frame_outputs = &frame;
  push.frame_output_count = 1;
  frame.tensor_width = 4;
  REFUSES(mote_stream_push(stream, &push, NULL, &error), "frame_outputs[0].tensor_height");
}

static void streams(const char *path) {
  mote_client_t *client = connect_to(path);
  mote_stream_t *stream = NULL;
  mote_buffer_t *in = NULL, *out = NULL;
  mote_tensor_t input = numbers();
  mote_target_t target = {0};
  mote_push_args_t push = MOTE_PUSH_ARGS_INIT;
  mote_result_t *result = NULL;
  mote_output_t output = MOTE_OUTPUT_INIT;
  mote_receipt_info_t info = MOTE_RECEIPT_INFO_INIT;
  const mote_receipt_t *receipt = NULL;
  const float *content;

  FAILS(mote_stream_open(client, "nobody", NULL, &stream, &error), MOTE_ERROR_MODEL_NOT_FOUND);
  CHECK(stream == NULL);
  OK(mote_stream_open(client, "add", NULL, &stream, &error));
  CHECK_TEXT(mote_stream_json(stream),
             "{\"inputs\":[{\"name\":\"x\",\"dtype\":\"f32\",\"shape\":[1,null]}],"
             "\"outputs\":[{\"name\":\"y\",\"dtype\":\"f32\",\"shape\":[1,null]}]}");
  push.inputs = &input;
  push.input_count = 1;
  OK(mote_stream_push(stream, &push, &result, &error));
  OK(mote_result_output(result, 0, &output, &error));
  check_output(&output);
  CHECK(mote_result_receipt(result) == NULL);
  mote_result_free(result);

  OK(mote_stream_buffer_create(stream, 64, &in, &error));
  OK(mote_buffer_create(client, 64, &out, &error));
  frames_of(stream, in);
  memcpy(mote_buffer_data(in), NUMBERS, sizeof NUMBERS);
  input.data = NULL;
  input.bytes = 0;
  input.buffer = in;
  target.name = "y";
  target.buffer = out;
  target.bytes = sizeof NUMBERS;
  target.shape = SHAPE;
  target.rank = 2;
  push.targets = &target;
  push.target_count = 1;
  /* The stream does not know the client's buffer yet. */
  FAILS(mote_stream_push(stream, &push, NULL, &error), MOTE_ERROR_INVALID);
  OK(mote_stream_register(stream, out, &error));
  OK(mote_stream_push(stream, &push, NULL, &error));
  content = mote_buffer_data(out);
  CHECK(content[0] == 2 && content[3] == 5);
  OK(mote_stream_unregister(stream, out, &error));
  FAILS(mote_stream_push(stream, &push, NULL, &error), MOTE_ERROR_INVALID);

  OK(mote_stream_close(stream, &receipt, &error));
  OK(mote_receipt_info(receipt, &info, &error));
  CHECK_TEXT(info.model, "add");
  CHECK(info.steps == 2);
  FAILS(mote_stream_push(stream, &push, NULL, &error), MOTE_ERROR_CONNECTION_CLOSED);
  FAILS(mote_stream_close(stream, &receipt, &error), MOTE_ERROR_CONNECTION_CLOSED);
  CHECK(receipt == NULL);
  mote_stream_free(stream);
  mote_buffer_free(in);
  mote_buffer_free(out);
  mote_client_free(client);
}

static mote_generation_t *ask(const mote_client_t *client, const char *model,
                              uint32_t tokens_max) {
  mote_generate_args_t args = MOTE_GENERATE_ARGS_INIT;
  mote_generation_t *generation = NULL;
  args.model = model;
  args.prompt = "t1";
  args.tokens_max = tokens_max;
  OK(mote_generate(client, &args, &generation, &error));
  return generation;
}

/* Reads until a token comes. */
static void read_token(const mote_generation_t *generation) {
  mote_event_t event = MOTE_EVENT_INIT;
  do {
    OK(mote_generation_next(generation, &event, &error));
    CHECK(event.kind != MOTE_EVENT_NONE && event.kind != MOTE_EVENT_DONE);
  } while (event.kind != MOTE_EVENT_TOKEN);
}

/* Reads until the last event, an error. */
static mote_status_t read_error(const mote_generation_t *generation) {
  mote_event_t event = MOTE_EVENT_INIT;
  mote_status_t status;
  while ((status = mote_generation_next(generation, &event, NULL)) == MOTE_OK) {
    CHECK(event.kind != MOTE_EVENT_NONE && event.kind != MOTE_EVENT_DONE);
  }
  CHECK(event.kind == MOTE_EVENT_NONE);
  OK(mote_generation_next(generation, &event, &error));
  CHECK(event.kind == MOTE_EVENT_NONE);
  return status;
}

static void answers(const char *path) {
  mote_client_t *client = connect_to(path);
  mote_generation_t *generation = ask(client, "answers", 3);
  mote_generate_args_t args = MOTE_GENERATE_ARGS_INIT;
  mote_event_t event = MOTE_EVENT_INIT;
  mote_receipt_info_t info = MOTE_RECEIPT_INFO_INIT;
  const mote_message_t message = {"user", NULL};
  const char *stops[] = {"a", NULL};
  uint32_t tokens = 0;

  REFUSES(mote_generation_next(generation, NULL, &error), "event");
  event.size = 8;
  REFUSES(mote_generation_next(generation, &event, &error), "event.size");
  event.size = sizeof event;
  do {
    OK(mote_generation_next(generation, &event, &error));
    if (event.kind == MOTE_EVENT_TOKEN) {
      CHECK(event.token_index == tokens && strlen(event.text) == event.text_bytes);
      tokens++;
    } else if (event.kind == MOTE_EVENT_PROGRESS) {
      CHECK(event.stage >= MOTE_STAGE_QUEUED && event.stage <= MOTE_STAGE_ENCODE);
    }
  } while (event.kind != MOTE_EVENT_DONE);
  CHECK(tokens == 3 && event.finish == MOTE_FINISH_TOKENS_MAX);
  OK(mote_receipt_info(event.receipt, &info, &error));
  CHECK(info.generated_tokens == 3 && info.prompt_tokens == 1);
  OK(mote_generation_next(generation, &event, &error));
  CHECK(event.kind == MOTE_EVENT_NONE && event.receipt == NULL);
  CHECK_TEXT(info.model, "answers");
  mote_generation_free(generation);

  generation = ask(client, "nobody", 3);
  CHECK(read_error(generation) == MOTE_ERROR_MODEL_NOT_FOUND);
  mote_generation_free(generation);

  REFUSES(mote_generate(client, NULL, &generation, &error), "args");
  REFUSES(mote_generate(client, &args, &generation, &error), "model");
  args.model = "answers";
  REFUSES(mote_generate(client, &args, &generation, &error), "prompt");
  args.messages = &message;
  args.message_count = 1;
  REFUSES(mote_generate(client, &args, &generation, &error), "messages[0].content");
  args.prompt = "t1";
  REFUSES(mote_generate(client, &args, &generation, &error), "prompt");
  args.message_count = 0;
  args.stop = stops;
  args.stop_count = 2;
  REFUSES(mote_generate(client, &args, &generation, &error), "stop[1]");
  args.stop_count = 0;
  args.flags = 1;
  REFUSES(mote_generate(client, &args, &generation, &error), "flags");
  args.flags = 0;
  args.json_schema = "{}";
  args.regex = "a";
  REFUSES(mote_generate(client, &args, &generation, &error), "regex");
  args.json_schema = args.regex = NULL;
  args.reasoning = 3;
  REFUSES(mote_generate(client, &args, &generation, &error), "reasoning");
  args.reasoning = MOTE_REASONING_IN_TEXT;
  args.logit_bias_count = 1;
  REFUSES(mote_generate(client, &args, &generation, &error), "logit_bias");
  args.logit_bias_count = 0;
  args.draft_tokens_max = (uint64_t)1 << 40;
  REFUSES(mote_generate(client, &args, &generation, &error), "draft_tokens_max");
  args.draft_tokens_max = 0;
  REFUSES(mote_generate(client, &args, NULL, &error), "generation");
  CHECK(generation == NULL);

  args.has_logprobs = 1;
  args.top_logprobs = 2;
  args.tokens_max = 1;
  args.deterministic = args.slide_context = 1;
  OK(mote_generate(client, &args, &generation, &error));
  do {
    OK(mote_generation_next(generation, &event, &error));
  } while (event.kind != MOTE_EVENT_TOKEN);
  CHECK(event.has_logprob && event.logprob <= 0 && event.top_count == 2);
  CHECK(event.top[0].logprob >= event.top[1].logprob && event.top[0].id != event.top[1].id);
  CHECK(strlen(event.top[1].text) == event.top[1].text_bytes);
  CHECK(event.is_reasoning == 0 && event.reasoning_bytes == 0);
  mote_generation_free(generation);
  mote_client_free(client);
}

static void *cancel(void *generation) {
  OK(mote_generation_cancel(generation, &error));
  return NULL;
}

/* Two answers: one that is being written, one whose reader waits for a first token for ever. */
static void cancels(const char *path) {
  mote_client_t *client = connect_to(path);
  const char *models[] = {"answers", "hangs"};
  for (int at = 0; at < 2; at++) {
    mote_generation_t *generation = ask(client, models[at], 1000);
    pthread_t other;
    if (at == 0) {
      read_token(generation);
    }
    CHECK(pthread_create(&other, NULL, cancel, generation) == 0);
    CHECK(read_error(generation) == MOTE_ERROR_CANCELLED);
    CHECK(pthread_join(other, NULL) == 0);
    OK(mote_generation_cancel(generation, &error));
    mote_generation_free(generation);
  }
  /* Freed before its end, it is cancelled too. */
  mote_generation_free(ask(client, "hangs", 10));
  mote_client_free(client);
}

/* What each of several threads uses at once. */
typedef struct shared {
  const mote_client_t *client;
  const mote_stream_t *stream;
} shared_t;

enum { THREADS = 6, ROUNDS = 40 };

/* Runs, pushes and an answer, on a connection and a stream that others use meanwhile. */
static void *take_part(void *given) {
  const shared_t *shared = given;
  mote_tensor_t input = numbers();
  mote_infer_args_t infer = MOTE_INFER_ARGS_INIT;
  mote_push_args_t push = MOTE_PUSH_ARGS_INIT;
  mote_output_t output = MOTE_OUTPUT_INIT;
  mote_event_t event = MOTE_EVENT_INIT;
  mote_generation_t *generation = ask(shared->client, "answers", 5);
  uint32_t tokens = 0;

  infer.model = "add";
  infer.inputs = push.inputs = &input;
  infer.input_count = push.input_count = 1;
  for (int round = 0; round < ROUNDS; round++) {
    mote_result_t *result = NULL;
    OK(mote_infer(shared->client, &infer, &result, &error));
    OK(mote_result_find(result, "y", &output, &error));
    check_output(&output);
    mote_result_free(result);
    OK(mote_stream_push(shared->stream, &push, &result, &error));
    OK(mote_result_find(result, "y", &output, &error));
    check_output(&output);
    mote_result_free(result);
  }
  do {
    OK(mote_generation_next(generation, &event, &error));
    tokens += event.kind == MOTE_EVENT_TOKEN;
  } while (event.kind != MOTE_EVENT_DONE);
  CHECK(tokens == 5);
  mote_generation_free(generation);
  return NULL;
}

static void threads(const char *path) {
  mote_client_t *client = connect_to(path);
  mote_stream_t *stream = NULL;
  mote_receipt_info_t info = MOTE_RECEIPT_INFO_INIT;
  const mote_receipt_t *receipt = NULL;
  pthread_t others[THREADS];
  shared_t shared;

  OK(mote_stream_open(client, "add", NULL, &stream, &error));
  shared.client = client;
  shared.stream = stream;
  for (int at = 0; at < THREADS; at++) {
    CHECK(pthread_create(&others[at], NULL, take_part, &shared) == 0);
  }
  for (int at = 0; at < THREADS; at++) {
    CHECK(pthread_join(others[at], NULL) == 0);
  }
  OK(mote_stream_close(stream, &receipt, &error));
  OK(mote_receipt_info(receipt, &info, &error));
  CHECK(info.steps == THREADS * ROUNDS);
  mote_stream_free(stream);
  mote_client_free(client);
}

/* Handles outlive their client, and are of no use then. */
static void orphans(const char *path) {
  mote_client_t *client = connect_to(path);
  mote_generation_t *generation = ask(client, "answers", 1000);
  mote_stream_t *stream = NULL;
  mote_buffer_t *buffer = NULL;
  mote_result_t *result = NULL;
  mote_tensor_t input = numbers();
  mote_infer_args_t args = MOTE_INFER_ARGS_INIT;
  mote_output_t output = MOTE_OUTPUT_INIT;
  mote_status_t status;

  args.model = "add";
  args.inputs = &input;
  args.input_count = 1;
  OK(mote_infer(client, &args, &result, &error));
  OK(mote_stream_open(client, "add", NULL, &stream, &error));
  OK(mote_buffer_create(client, 4096, &buffer, &error));
  read_token(generation);
  mote_client_free(client);

  CHECK(read_error(generation) == MOTE_ERROR_CONNECTION_CLOSED);
  status = mote_generation_cancel(generation, NULL);
  CHECK(status == MOTE_OK || status == MOTE_ERROR_CONNECTION_CLOSED);
  memset(mote_buffer_data(buffer), 1, 4096);
  OK(mote_result_find(result, "y", &output, &error));
  check_output(&output);
  CHECK(strstr(mote_receipt_json(mote_result_receipt(result)), "\"model\":\"add\"") != NULL);
  mote_buffer_free(buffer);
  mote_result_free(result);
  mote_generation_free(generation);
  mote_stream_free(stream);
}

/* Says so when it is in the middle of an answer, a stream and a wait; the daemon is killed then. */
static void bereft(const char *path) {
  mote_client_t *client = connect_to(path);
  mote_generation_t *generation = ask(client, "answers", 1000);
  mote_stream_t *stream = NULL;
  mote_buffer_t *buffer = NULL;
  mote_tensor_t input = numbers();
  mote_push_args_t push = MOTE_PUSH_ARGS_INIT;
  mote_status_t status;
  char *json = NULL;

  push.inputs = &input;
  push.input_count = 1;
  OK(mote_stream_open(client, "add", NULL, &stream, &error));
  OK(mote_stream_push(stream, &push, NULL, &error));
  OK(mote_buffer_create(client, 4096, &buffer, &error));
  read_token(generation);
  puts("in the middle");
  fflush(stdout);

  CHECK(read_error(generation) == MOTE_ERROR_CONNECTION_CLOSED);
  CHECK(mote_daemon_json(client, &json, NULL) == MOTE_ERROR_CONNECTION_CLOSED && json == NULL);
  /* Its worker leaves with the daemon, at once or a push later. */
  while ((status = mote_stream_push(stream, &push, NULL, NULL)) == MOTE_OK) {
  }
  CHECK(status == MOTE_ERROR_CONNECTION_CLOSED || status == MOTE_ERROR_REVOKED);
  status = mote_generation_cancel(generation, NULL);
  CHECK(status == MOTE_OK || status == MOTE_ERROR_CONNECTION_CLOSED);
  mote_generation_free(generation);
  mote_stream_free(stream);
  mote_buffer_free(buffer);
  mote_client_free(client);
}

int main(int argc, char **argv) {
  static const struct {
    const char *name;
    void (*play)(const char *path);
  } parts[] = {
      {"reports", reports}, {"options", options}, {"tensors", tensors}, {"refusals", refusals},
      {"streams", streams}, {"answers", answers}, {"cancels", cancels}, {"threads", threads},
      {"orphans", orphans}, {"bereft", bereft},
  };
  CHECK(argc == 3);
  for (size_t at = 0; at < sizeof parts / sizeof parts[0]; at++) {
    if (strcmp(parts[at].name, argv[1]) == 0) {
      parts[at].play(argv[2]);
      return 0;
    }
  }
  fprintf(stderr, "there is no part %s\n", argv[1]);
  return 2;
}
