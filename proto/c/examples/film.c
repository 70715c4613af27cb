/*
 * Makes a clip of words: each PROMPT is a shot, which goes on from where the one before ended.
 *
 *   film [-s SOCKET] [-r SEED] [-n STEPS] [-k CHECKPOINT] MODEL OUT PROMPT...
 *
 * OUT is written as MP4. With -k the work so far is kept in a file: after Ctrl-C, or when anything
 * broke, the same command goes on from there. Ctrl-C ends the work with exit status 130.
 */
#define _POSIX_C_SOURCE 200809L

#include <mote.h>

#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { EXIT_USAGE = 2, EXIT_INTERRUPTED = 130, SHOTS_MAX = 16 };

/* Ends the thread that waits for Ctrl-C. */
#define SIGNAL_OVER SIGUSR1

static int fail(const char *what, mote_error_t *error) {
  fprintf(stderr, "film: %s: %s\n", what, mote_error_message(error));
  mote_error_free(error);
  return EXIT_FAILURE;
}

/* Nothing of Mote may be called from a signal handler, so a thread waits for the signal. */
static void *cancel_on_interrupt(void *clip) {
  sigset_t signals;
  int signal_number = 0;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGNAL_OVER);
  while (sigwait(&signals, &signal_number) == 0 && signal_number == SIGINT) {
    mote_clip_cancel(clip, NULL);
  }
  return NULL;
}

static void tell_receipt(const mote_receipt_t *given) {
  mote_receipt_info_t receipt = MOTE_RECEIPT_INFO_INIT;
  if (mote_receipt_info(given, &receipt, NULL) != MOTE_OK) {
    return;
  }
  printf("%" PRIu64 " frames, seed %" PRIu64 ", %s, %" PRIu64 " steps taken over\n",
         receipt.frames_out, receipt.seed, receipt.scheduler, receipt.resumed_steps);
  for (size_t step = 0; step < receipt.step_time_count; step++) {
    printf("step %zu: %" PRIu64 " us\n", step + 1, receipt.step_times_us[step]);
  }
}

/* Waits for the clip and tells how far it is; the exit status. */
static int follow(mote_clip_t *clip) {
  mote_event_t event = MOTE_EVENT_INIT;
  mote_error_t *error = NULL;
  mote_status_t status;
  while ((status = mote_clip_next(clip, &event, &error)) == MOTE_OK) {
    if (event.kind == MOTE_EVENT_NONE) {
      return EXIT_SUCCESS;
    }
    if (event.kind == MOTE_EVENT_PROGRESS && event.stage == MOTE_STAGE_DENOISE) {
      fprintf(stderr, "step %" PRIu64 "/%" PRIu64, event.done, event.total);
      if (event.remaining_ms != MOTE_UNKNOWN) {
        fprintf(stderr, ", %" PRIu64 " ms to go", event.remaining_ms);
      }
      fputc('\n', stderr);
    } else if (event.kind == MOTE_EVENT_DONE) {
      tell_receipt(event.receipt);
    }
  }
  if (status == MOTE_ERROR_CANCELLED) {
    mote_error_free(error);
    return EXIT_INTERRUPTED;
  }
  return fail("the work ended", error);
}

static int film(const mote_client_t *client, const mote_generate_clip_args_t *args) {
  mote_clip_t *clip = NULL;
  mote_error_t *error = NULL;
  pthread_t watcher;
  int exit_status;
  if (mote_generate_clip(client, args, &clip, &error) != MOTE_OK) {
    return fail("cannot ask", error);
  }
  if (pthread_create(&watcher, NULL, cancel_on_interrupt, clip) != 0) {
    fputs("film: cannot start a thread\n", stderr);
    mote_clip_free(clip);
    return EXIT_FAILURE;
  }
  exit_status = follow(clip);
  pthread_kill(watcher, SIGNAL_OVER);
  pthread_join(watcher, NULL);
  mote_clip_free(clip);
  return exit_status;
}

/* Takes the options in; 0 when they do not hold. */
static int take_options(int argc, char **argv, mote_generate_clip_args_t *args,
                        const char **socket_path, const char **checkpoint) {
  int option;
  while ((option = getopt(argc, argv, "s:r:n:k:")) != -1) {
    switch (option) {
    case 's': *socket_path = optarg; break;
    case 'r':
      args->seed = strtoull(optarg, NULL, 10);
      args->has_seed = 1;
      break;
    case 'n': args->steps = (uint32_t)strtoul(optarg, NULL, 10); break;
    case 'k': *checkpoint = optarg; break;
    default: return 0;
    }
  }
  return argc - optind >= 3 && argc - optind - 2 <= SHOTS_MAX;
}

int main(int argc, char **argv) {
  mote_generate_clip_args_t args = MOTE_GENERATE_CLIP_ARGS_INIT;
  mote_clip_segment_t shots[SHOTS_MAX] = {{NULL, 0, 0}};
  const char *socket_path = NULL, *checkpoint = NULL;
  mote_client_t *client = NULL;
  mote_error_t *error = NULL;
  sigset_t signals;
  int exit_status;

  if (!take_options(argc, argv, &args, &socket_path, &checkpoint)) {
    fputs("usage: film [-s SOCKET] [-r SEED] [-n STEPS] [-k CHECKPOINT] MODEL OUT PROMPT...\n",
          stderr);
    return EXIT_USAGE;
  }
  args.model = argv[optind];
  args.segments = shots;
  args.segment_count = (size_t)(argc - optind - 2);
  for (size_t at = 0; at < args.segment_count; at++) {
    shots[at].prompt = argv[optind + 2 + (int)at];
  }

  /* Before there are threads, those of the library included: all of them inherit it. */
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGNAL_OVER);
  pthread_sigmask(SIG_BLOCK, &signals, NULL);

  if (mote_connect(socket_path, "film", &client, &error) != MOTE_OK) {
    return fail("no daemon", error);
  }
  args.output_fd = open(argv[optind + 1], O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (checkpoint != NULL) {
    args.checkpoint_fd = open(checkpoint, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  }
  if (args.output_fd < 0 || (checkpoint != NULL && args.checkpoint_fd < 0)) {
    perror("film: cannot open a file");
    exit_status = EXIT_FAILURE;
  } else {
    exit_status = film(client, &args);
  }
  mote_client_free(client);
  return exit_status;
}
