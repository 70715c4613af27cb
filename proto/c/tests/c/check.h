/* What the test programs share. A check that does not hold ends the program. */
#ifndef CHECK_H
#define CHECK_H

#include <mote.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                    \
  do {                                                                      \
    if (!(condition)) {                                                     \
      fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);       \
      exit(1);                                                              \
    }                                                                       \
  } while (0)

#define CHECK_TEXT(text, expected)                                                           \
  do {                                                                                       \
    const char *is = (text);                                                                 \
    if (is == NULL || strcmp(is, (expected)) != 0) {                                         \
      fprintf(stderr, "%s:%d: %s is %s, not %s\n", __FILE__, __LINE__, #text,                \
              is == NULL ? "NULL" : is, (expected));                                         \
      exit(1);                                                                               \
    }                                                                                        \
  } while (0)

/* The call goes well. Inside it, `error` is where it tells why it did not. */
#define OK(call)                                                                             \
  do {                                                                                       \
    mote_error_t *error = NULL;                                                              \
    if ((call) != MOTE_OK) {                                                                 \
      fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #call,                          \
              mote_error_message(error));                                                    \
      exit(1);                                                                               \
    }                                                                                        \
    CHECK(error == NULL);                                                                    \
  } while (0)

/* The call fails with this status, and its error says the same. */
#define FAILS(call, status)                                                                  \
  do {                                                                                       \
    mote_error_t *error = NULL;                                                              \
    mote_status_t is = (call);                                                               \
    if (is != (status)) {                                                                    \
      fprintf(stderr, "%s:%d: %s: %s, not %s\n", __FILE__, __LINE__, #call,                  \
              mote_status_name(is), mote_status_name(status));                               \
      exit(1);                                                                               \
    }                                                                                        \
    CHECK(mote_error_status(error) == (status));                                             \
    CHECK(strstr(mote_error_json(error), mote_status_name(status)) != NULL);                 \
    mote_error_free(error);                                                                  \
  } while (0)

/* The call refuses the argument of this name. */
#define REFUSES(call, argument)                                                              \
  do {                                                                                       \
    mote_error_t *error = NULL;                                                              \
    mote_status_t is = (call);                                                               \
    if (is != MOTE_ERROR_INVALID) {                                                          \
      fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #call, mote_status_name(is));   \
      exit(1);                                                                               \
    }                                                                                        \
    CHECK_TEXT(mote_error_text(error, "field"), argument);                                   \
    CHECK(strstr(mote_error_message(error), argument) != NULL);                              \
    mote_error_free(error);                                                                  \
  } while (0)

#endif
