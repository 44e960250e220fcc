/* SPDX-License-Identifier: MIT */
/*
 * See options.h.
 */
#include "options.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "usage: driver [OPTION ...]\n"
    "  --suite=NAME      what to measure (records); --list names them\n"
    "  --engines=A,B     which engines (all that were built)\n"
    "  --records=N       how many (1000000)\n"
    "  --key=BYTES       8 or more (32)\n"
    "  --value=BYTES     8 or more, or \"key\": the value is the key (32)\n"
    "  --rounds=N        of all engines in turn (3)\n"
    "  --seconds=S       the longest that a workload is timed (0: no end)\n"
    "  --folder=FOLDER   is made for the stores, and removed (bench-files)\n"
    "  --out=FOLDER      gets more lines in results.csv and summary.csv\n"
    "  --list            say which engines and suites there are\n";

enum { RECORDS_MAX = 1000000000, BYTES_MAX = 1 << 20, ROUNDS_MAX = 999 };

static bool complain(const char *what, const char *name) {
  fprintf(stderr, "driver: %s: %s\n%s", what, name, usage);
  return false;
}

static bool read_number(const char *text, size_t least, size_t most,
                        size_t *number_out) {
  char *end;
  unsigned long number = strtoul(text, &end, 10);
  if (end == text || *end != '\0' || number < least || number > most)
    return complain("not a number that is allowed", text);
  *number_out = number;
  return true;
}

static bool read_engines(struct options *options, const char *text) {
  char name[64];
  size_t count = 0;
  while (*text != '\0') {
    size_t size = strcspn(text, ",");
    if (size >= sizeof name || count + 1 == ENGINES_MAX)
      return complain("too long", text);
    memcpy(name, text, size);
    name[size] = '\0';
    options->engines[count] = engine_by_name(name);
    if (options->engines[count++] == NULL)
      return complain("no such engine", name);
    text += size + (text[size] == ',');
  }
  options->engines[count] = NULL;
  return true;
}

static void take_all_engines(struct options *options) {
  size_t count = 0;
  for (size_t i = 0; engines[i] != NULL && count + 1 < ENGINES_MAX; i++)
    if (!(engines[i]->traits & ENGINE_HIDDEN))
      options->engines[count++] = engines[i];
  options->engines[count] = NULL;
}

static bool read_one(struct options *options, int which, const char *text) {
  char *end;
  switch (which) {
    case 's':
      options->suite = suite_by_name(text);
      return options->suite != NULL || complain("no such suite", text);
    case 'e':
      return read_engines(options, text);
    case 'n':
      return read_number(text, 1, RECORDS_MAX, &options->records);
    case 'k':
      return read_number(text, 8, 65535, &options->key_bytes);
    case 'v':
      options->value_is_key = strcmp(text, "key") == 0;
      return options->value_is_key ||
             read_number(text, 8, BYTES_MAX, &options->value_bytes);
    case 'r':
      return read_number(text, 1, ROUNDS_MAX, &options->rounds);
    case 't':
      options->seconds = strtod(text, &end);
      return (*end == '\0' && options->seconds >= 0) ||
             complain("not a time", text);
    case 'f':
      options->folder = text;
      return true;
    case 'o':
      options->out = text;
      return true;
    case 'l':
      options->list = true;
      return true;
    default:
      fputs(usage, stderr);
      return false;
  }
}

bool options_read(struct options *options, int argc, char **argv) {
  static const struct option known[] = {
      {"suite", required_argument, NULL, 's'},
      {"engines", required_argument, NULL, 'e'},
      {"records", required_argument, NULL, 'n'},
      {"key", required_argument, NULL, 'k'},
      {"value", required_argument, NULL, 'v'},
      {"rounds", required_argument, NULL, 'r'},
      {"seconds", required_argument, NULL, 't'},
      {"folder", required_argument, NULL, 'f'},
      {"out", required_argument, NULL, 'o'},
      {"list", no_argument, NULL, 'l'},
      {NULL, 0, NULL, 0}};
  int which;
  *options = (struct options){.suite = suite_by_name("records"),
                              .records = 1000000,
                              .key_bytes = 32,
                              .value_bytes = 32,
                              .rounds = 3,
                              .folder = "bench-files"};
  take_all_engines(options);
  while ((which = getopt_long(argc, argv, "", known, NULL)) != -1)
    if (!read_one(options, which, optarg)) return false;
  if (optind < argc) return complain("what is this", argv[optind]);
  if (options->value_is_key) options->value_bytes = options->key_bytes;
  return true;
}
