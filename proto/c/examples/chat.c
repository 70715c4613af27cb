/*
 * Answers a question and writes the answer to stdout as it comes.
 *
 *   chat [-s SOCKET] [-n TOKENS] [-t TEMPERATURE] [-r SEED] [-j JSON_SCHEMA] MODEL QUESTION
 *
 * With -j the answer is JSON that the schema describes.
 *
 * Ctrl-C ends the answer, not the program: what was said until then stays, and the exit status
 * is 130.
 */
#define _POSIX_C_SOURCE 200809L

#include <mote.h>

#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { EXIT_USAGE = 2, EXIT_INTERRUPTED = 130 };

/* Ends the thread that waits for Ctrl-C. */
#define SIGNAL_OVER SIGUSR1

static int fail(const char *what, mote_error_t *error) {
  int64_t wait_ms = 0;
  fprintf(stderr, "chat: %s: %s\n", what, mote_error_message(error));
  if (mote_error_number(error, "retry_after_ms", &wait_ms)) {
    fprintf(stderr, "chat: try again in %" PRId64 " ms\n", wait_ms);
  }
  mote_error_free(error);
  return EXIT_FAILURE;
}

/* Nothing of Mote may be called from a signal handler, so a thread waits for the signal. */
static void *cancel_on_interrupt(void *generation) {
  sigset_t signals;
  int signal_number = 0;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGNAL_OVER);
  while (sigwait(&signals, &signal_number) == 0 && signal_number == SIGINT) {
    mote_generation_cancel(generation, NULL);
  }
  return NULL;
}

/* Writes the answer as it comes; the exit status. */
static int write_answer(mote_generation_t *generation) {
  mote_event_t event = MOTE_EVENT_INIT;
  mote_error_t *error = NULL;
  mote_status_t status;
  while ((status = mote_generation_next(generation, &event, &error)) == MOTE_OK) {
    if (event.kind == MOTE_EVENT_NONE) {
      return EXIT_SUCCESS;
    }
    if (event.kind == MOTE_EVENT_TOKEN) {
      fwrite(event.text, 1, event.text_bytes, stdout);
      fflush(stdout);
    } else if (event.kind == MOTE_EVENT_DONE) {
      mote_receipt_info_t receipt = MOTE_RECEIPT_INFO_INIT;
      putchar('\n');
      if (mote_receipt_info(event.receipt, &receipt, NULL) == MOTE_OK) {
        fprintf(stderr, "%" PRIu64 " tokens on %s (%s) in %" PRIu64 " ms\n",
                receipt.generated_tokens, receipt.device_name, receipt.backend,
                receipt.decode_us / 1000);
      }
    }
  }
  putchar('\n');
  if (status == MOTE_ERROR_CANCELLED) {
    mote_error_free(error);
    return EXIT_INTERRUPTED;
  }
  return fail("the answer ended", error);
}

static int answer(const mote_client_t *client, const mote_generate_args_t *args) {
  mote_generation_t *generation = NULL;
  mote_error_t *error = NULL;
  pthread_t watcher;
  int exit_status;
  if (mote_generate(client, args, &generation, &error) != MOTE_OK) {
    return fail("cannot ask", error);
  }
  if (pthread_create(&watcher, NULL, cancel_on_interrupt, generation) != 0) {
    fputs("chat: cannot start a thread\n", stderr);
    mote_generation_free(generation);
    return EXIT_FAILURE;
  }
  exit_status = write_answer(generation);
  pthread_kill(watcher, SIGNAL_OVER);
  pthread_join(watcher, NULL);
  mote_generation_free(generation);
  return exit_status;
}

int main(int argc, char **argv) {
  mote_generate_args_t args = MOTE_GENERATE_ARGS_INIT;
  mote_sampling_t sampling = MOTE_SAMPLING_INIT;
  mote_message_t question = {"user", NULL};
  const char *path = NULL;
  mote_client_t *client = NULL;
  mote_error_t *error = NULL;
  sigset_t signals;
  int option, exit_status;

  while ((option = getopt(argc, argv, "s:n:t:r:j:")) != -1) {
    switch (option) {
    case 's': path = optarg; break;
    case 'n': args.tokens_max = (uint32_t)strtoul(optarg, NULL, 10); break;
    case 't': sampling.temperature = strtof(optarg, NULL); break;
    case 'r':
      sampling.seed = strtoull(optarg, NULL, 10);
      sampling.has_seed = 1;
      break;
    case 'j': args.json_schema = optarg; break;
    default: return EXIT_USAGE;
    }
  }
  if (argc - optind != 2) {
    fputs("usage: chat [-s SOCKET] [-n TOKENS] [-t TEMPERATURE] [-r SEED] [-j JSON_SCHEMA] MODEL "
          "QUESTION\n",
          stderr);
    return EXIT_USAGE;
  }
  args.model = argv[optind];
  question.content = argv[optind + 1];
  args.messages = &question;
  args.message_count = 1;
  args.sampling = &sampling;

  /* Before there are threads, those of the library included: all of them inherit it. */
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGNAL_OVER);
  pthread_sigmask(SIG_BLOCK, &signals, NULL);

  if (mote_connect(path, "chat", &client, &error) != MOTE_OK) {
    return fail("no daemon", error);
  }
  exit_status = answer(client, &args);
  mote_client_free(client);
  return exit_status;
}
