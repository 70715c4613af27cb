/*
 * Which of some texts is nearest to a question? Embeds all and prints the texts, the nearest first.
 *
 *   search [-s SOCKET] MODEL QUESTION TEXT...
 */
#define _POSIX_C_SOURCE 200809L

#include <mote.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { EXIT_USAGE = 2 };

/* A text and how near it is: the product of two vectors of length 1. */
typedef struct found {
  const char *text;
  double nearness;
} found_t;

static int fail(const char *what, mote_error_t *error) {
  fprintf(stderr, "search: %s: %s\n", what, mote_error_message(error));
  mote_error_free(error);
  return EXIT_FAILURE;
}

static int nearer(const void *one, const void *other) {
  double a = ((const found_t *)one)->nearness, b = ((const found_t *)other)->nearness;
  return (a < b) - (a > b);
}

/* Embeds texts of one kind; NULL, with the reason told, when that fails. */
static mote_result_t *embed(const mote_client_t *client, const char *model, int32_t kind,
                            const char *const *texts, size_t count) {
  mote_embed_args_t args = MOTE_EMBED_ARGS_INIT;
  mote_result_t *result = NULL;
  mote_error_t *error = NULL;
  args.model = model;
  args.kind = kind;
  args.texts = texts;
  args.text_count = count;
  args.truncate = 1;
  if (mote_embed(client, &args, &result, &error) != MOTE_OK) {
    fail("cannot embed", error);
  }
  return result;
}

/* Compares a question with each of the texts and prints those. */
static int compare(const mote_result_t *question, const mote_result_t *texts, char **names) {
  mote_output_t asked = MOTE_OUTPUT_INIT, there = MOTE_OUTPUT_INIT;
  mote_receipt_info_t receipt = MOTE_RECEIPT_INFO_INIT;
  mote_error_t *error = NULL;
  size_t count, width;
  found_t *found;
  if (mote_result_output(question, 0, &asked, &error) != MOTE_OK ||
      mote_result_output(texts, 0, &there, &error) != MOTE_OK) {
    return fail("no vectors", error);
  }
  count = (size_t)there.shape[0];
  width = (size_t)there.shape[1];
  found = calloc(count, sizeof *found);
  if (found == NULL) {
    perror("search");
    return EXIT_FAILURE;
  }
  for (size_t at = 0; at < count; at++) {
    const float *one = asked.data, *other = (const float *)there.data + at * width;
    found[at].text = names[at];
    for (size_t element = 0; element < width; element++) {
      found[at].nearness += (double)one[element] * (double)other[element];
    }
  }
  qsort(found, count, sizeof *found, nearer);
  for (size_t at = 0; at < count; at++) {
    printf("%.4f %s\n", found[at].nearness, found[at].text);
  }
  free(found);
  if (mote_receipt_info(mote_result_receipt(texts), &receipt, NULL) == MOTE_OK) {
    fprintf(stderr, "%" PRIu64 " texts of %" PRIu64 " tokens on %s: %" PRIu64 " us\n",
            receipt.texts, receipt.prompt_tokens, receipt.device_name, receipt.compute_us);
  }
  return EXIT_SUCCESS;
}

static int run(const mote_client_t *client, char **words, size_t text_count) {
  const char *const *texts = (const char *const *)words;
  mote_result_t *question = embed(client, words[0], MOTE_EMBED_QUERY, texts + 1, 1);
  mote_result_t *answers = NULL;
  int exit_status = EXIT_FAILURE;
  if (question != NULL) {
    answers = embed(client, words[0], MOTE_EMBED_DOCUMENT, texts + 2, text_count);
  }
  if (answers != NULL) {
    exit_status = compare(question, answers, words + 2);
  }
  mote_result_free(answers);
  mote_result_free(question);
  return exit_status;
}

int main(int argc, char **argv) {
  const char *path = NULL;
  mote_client_t *client = NULL;
  mote_error_t *error = NULL;
  int option, exit_status;
  while ((option = getopt(argc, argv, "s:")) != -1) {
    if (option != 's') {
      return EXIT_USAGE;
    }
    path = optarg;
  }
  if (argc - optind < 3) {
    fputs("usage: search [-s SOCKET] MODEL QUESTION TEXT...\n", stderr);
    return EXIT_USAGE;
  }
  if (mote_connect(path, "search", &client, &error) == MOTE_OK) {
    exit_status = run(client, argv + optind, (size_t)(argc - optind - 2));
  } else {
    exit_status = fail("no daemon", error);
  }
  mote_client_free(client);
  return exit_status;
}
