/*
 * What kind of file is this? Runs the tensor model "magika" with input and output in shared memory.
 *
 *   tensor [-s SOCKET] FILE
 *
 * Prints the number of the likeliest label (a line of the model's labels.txt, from 0) and its
 * chance.
 */
#define _POSIX_C_SOURCE 200809L

#include <mote.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The model takes so many bytes of either end of a file, without white space around them, looked
 * for in so large a block; bytes that are not there are PADDING. */
#define END_BYTES 1024
#define BLOCK_BYTES 4096
#define PADDING 256
#define LABELS 214

#define INPUT_BYTES (2 * END_BYTES * sizeof(int32_t))
#define OUTPUT_BYTES (LABELS * sizeof(float))

enum { EXIT_USAGE = 2 };

static int fail(const char *what, mote_error_t *error) {
  fprintf(stderr, "tensor: %s: %s\n", what, mote_error_message(error));
  mote_error_free(error);
  return EXIT_FAILURE;
}

static int is_space(unsigned char byte) {
  return byte == ' ' || (byte >= '\t' && byte <= '\r');
}

/* Reads the file's first or last block; how many bytes it has. */
static size_t read_block(FILE *file, long offset, unsigned char *block) {
  if (fseek(file, offset, SEEK_SET) != 0) {
    return 0;
  }
  return fread(block, 1, BLOCK_BYTES, file);
}

/* Writes what the model takes, straight to where the daemon reads it. 0 when it cannot be read. */
static int write_input(FILE *file, int32_t *input) {
  unsigned char block[BLOCK_BYTES];
  size_t bytes, from, kept;
  long file_bytes;
  if (fseek(file, 0, SEEK_END) != 0 || (file_bytes = ftell(file)) <= 0) {
    return 0;
  }
  for (size_t at = 0; at < 2 * END_BYTES; at++) {
    input[at] = PADDING;
  }

  bytes = read_block(file, 0, block);
  for (from = 0; from < bytes && is_space(block[from]); from++) {
  }
  kept = bytes - from < END_BYTES ? bytes - from : END_BYTES;
  for (size_t at = 0; at < kept; at++) {
    input[at] = block[from + at];
  }

  bytes = read_block(file, file_bytes > BLOCK_BYTES ? file_bytes - BLOCK_BYTES : 0, block);
  while (bytes > 0 && is_space(block[bytes - 1])) {
    bytes--;
  }
  kept = bytes < END_BYTES ? bytes : END_BYTES;
  for (size_t at = 0; at < kept; at++) {
    input[2 * END_BYTES - kept + at] = block[bytes - kept + at];
  }
  return 1;
}

/* Runs the model on `input` and prints what is in `output` then. */
static int classify(const mote_client_t *client, mote_buffer_t *input, mote_buffer_t *output) {
  const uint64_t shape[] = {1, 2 * END_BYTES};
  const float *chances = mote_buffer_data(output);
  mote_tensor_t tensor = {0};
  mote_target_t target = {0};
  mote_infer_args_t args = MOTE_INFER_ARGS_INIT;
  mote_receipt_info_t receipt = MOTE_RECEIPT_INFO_INIT;
  mote_result_t *result = NULL;
  mote_error_t *error = NULL;
  size_t best = 0;

  tensor.name = "bytes";
  tensor.dtype = MOTE_DTYPE_I32;
  tensor.shape = shape;
  tensor.rank = 2;
  tensor.buffer = input;
  target.name = "target_label";
  target.buffer = output;
  target.bytes = OUTPUT_BYTES;
  /* The model's own shape is [batch, 214]: say what is expected. */
  const uint64_t output_shape[] = {1, LABELS};
  target.shape = output_shape;
  target.rank = 2;
  args.model = "magika";
  args.inputs = &tensor;
  args.input_count = 1;
  args.targets = &target;
  args.target_count = 1;
  if (mote_infer(client, &args, &result, &error) != MOTE_OK) {
    return fail("cannot run the model", error);
  }
  for (size_t label = 1; label < LABELS; label++) {
    if (chances[label] > chances[best]) {
      best = label;
    }
  }
  printf("label %zu chance %.9g\n", best, (double)chances[best]);
  if (mote_receipt_info(mote_result_receipt(result), &receipt, NULL) == MOTE_OK) {
    fprintf(stderr, "on %s (%s): %" PRIu64 " us, %" PRIu64 " bytes copied\n",
            receipt.device_name, receipt.backend, receipt.compute_us, receipt.bytes_copied);
  }
  mote_result_free(result);
  return EXIT_SUCCESS;
}

static int run(const mote_client_t *client, FILE *file) {
  mote_buffer_t *input = NULL, *output = NULL;
  mote_error_t *error = NULL;
  int exit_status;
  if (mote_buffer_create(client, INPUT_BYTES, &input, &error) != MOTE_OK ||
      mote_buffer_create(client, OUTPUT_BYTES, &output, &error) != MOTE_OK) {
    exit_status = fail("no shared memory", error);
  } else if (!write_input(file, mote_buffer_data(input))) {
    fputs("tensor: the file is empty or cannot be read\n", stderr);
    exit_status = EXIT_FAILURE;
  } else {
    exit_status = classify(client, input, output);
  }
  mote_buffer_free(output);
  mote_buffer_free(input);
  return exit_status;
}

int main(int argc, char **argv) {
  const char *path = NULL;
  mote_client_t *client = NULL;
  mote_error_t *error = NULL;
  FILE *file;
  int option, exit_status;
  while ((option = getopt(argc, argv, "s:")) != -1) {
    if (option != 's') {
      return EXIT_USAGE;
    }
    path = optarg;
  }
  if (argc - optind != 1) {
    fputs("usage: tensor [-s SOCKET] FILE\n", stderr);
    return EXIT_USAGE;
  }
  file = fopen(argv[optind], "rb");
  if (file == NULL) {
    perror(argv[optind]);
    return EXIT_FAILURE;
  }
  if (mote_connect(path, "tensor", &client, &error) == MOTE_OK) {
    exit_status = run(client, file);
  } else {
    exit_status = fail("no daemon", error);
  }
  mote_client_free(client);
  fclose(file);
  return exit_status;
}
