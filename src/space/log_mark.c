/* SPDX-License-Identifier: MIT */
/*
 * Going back in a log that only a transaction sees.
 */
#include "space/log.h"

struct log_mark log_mark(const struct log *log) {
  struct log_mark mark = {.frame_offset = log->frame_offset,
                          .cursor = log->cursor,
                          .branch_frame_offset = log->branches.frame_offset,
                          .branch_cursor = log->branches.cursor,
                          .appended_bytes = log->appended_bytes,
                          .large = log->large,
                          .flags = log->flags};
  return mark;
}

void log_return_to(struct log *log, const struct log_mark *mark) {
  struct log_branches *branches = &log->branches;
  if (log->pages_size > 0)
    usage_lower_pages(log, log->space, log->pages_offset, log->pages_size);
  log->pages_size = 0;
  if (branches->frame_offset == mark->branch_frame_offset &&
      branches->frame_offset != 0)
    branches->cursor = mark->branch_cursor;
  if (log->frame_offset != mark->frame_offset) return;
  log->cursor = mark->cursor;
  log->flags = mark->flags;
  if (log->large.limit == mark->large.limit) {
    log->large = mark->large;
    log->appended_bytes = mark->appended_bytes;
  }
}

void log_return_counts(struct log *log, const struct share_counts *counts) {
  usage_return_to(log, counts);
  log->counted_cursor = log->cursor;
  log->branches.counted_cursor = log->branches.cursor;
}
