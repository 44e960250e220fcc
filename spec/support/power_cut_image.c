/* SPDX-License-Identifier: MIT */
/*
 * Images: making, mounting and shutting down a file system in a file. Where
 * that is not allowed, or a program for it is missing, the program ends as
 * skipped.
 *
 * Each mount has a new loop device that ends with it, so no block that was
 * cached for the file system before a cut is seen by the one after it.
 */
#include "power_cut.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* Of XFS, which ext4 understands too. 2: without flushing its log. */
#define SHUT_DOWN _IOR('X', 125, uint32_t)
#define SHUT_DOWN_WITHOUT_FLUSHING UINT32_C(2)

static void enter_own_mounts(void) {
  static bool is_done;
  if (is_done) return;
  if (geteuid() != 0) skip("needs root to mount file systems");
  if (unshare(CLONE_NEWNS) != 0 ||
      mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
    skip("mounting is not allowed here: %s", strerror(errno));
  is_done = true;
}

/* mkfs prints nothing; it is there or this is skipped. */
static void make_file_system(const char *kind, const char *path) {
  static const char *const ext4[] = {"mkfs.ext4", "-q", "-F", NULL, NULL};
  static const char *const xfs[] = {"mkfs.xfs", "-q", "-f", NULL, NULL};
  const char *arguments[5];
  memcpy(arguments, strcmp(kind, "xfs") == 0 ? xfs : ext4, sizeof arguments);
  arguments[3] = path;
  fflush(stdout);
  pid_t child = fork();
  if (child == 0) {
    execvp(arguments[0], (char *const *)(uintptr_t)arguments);
    _exit(127);
  }
  int status = 0;
  if (child < 0 || waitpid(child, &status, 0) != child) die("fork");
  if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
    skip("needs %s", arguments[0]);
  if (status != 0) die("%s failed", arguments[0]);
}

void image_create(struct image *image, const char *kind, const char *folder,
                  uint64_t size_bytes) {
  char path[4096];
  enter_own_mounts();
  memset(image, 0, sizeof *image);
  snprintf(image->kind, sizeof image->kind, "%s", kind);
  char *colon = strchr(image->kind, ':');
  if (colon != NULL) {
    *colon = '\0';
    image->options = colon + 1;
  }
  snprintf(path, sizeof path, "%s/image-XXXXXX", folder);
  image->fd = mkostemp(path, O_CLOEXEC);
  if (image->fd < 0) die("%s: %s", path, strerror(errno));
  if (ftruncate(image->fd, (off_t)size_bytes) != 0)
    die("image: %s", strerror(errno));
  make_file_system(image->kind, path);
  unlink(path);
  snprintf(image->place, sizeof image->place, "%s/mount-XXXXXX", folder);
  if (mkdtemp(image->place) == NULL) die("mkdtemp: %s", strerror(errno));
}

/* A loop device for the image, which ends when its last user closes it. */
static int attach_loop(const struct image *image, char device_out[32]) {
  struct loop_config config;
  memset(&config, 0, sizeof config);
  config.fd = (uint32_t)image->fd;
  config.info.lo_flags = LO_FLAGS_AUTOCLEAR;
  int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
  if (control < 0) skip("/dev/loop-control: %s", strerror(errno));
  int error = 0;
  for (int attempt = 0; attempt < 100; attempt++) {
    int number = ioctl(control, LOOP_CTL_GET_FREE);
    snprintf(device_out, 32, "/dev/loop%d", number);
    int loop = number < 0 ? -1 : open(device_out, O_RDWR | O_CLOEXEC);
    error = errno;
    if (loop >= 0 && ioctl(loop, LOOP_CONFIGURE, &config) == 0) {
      close(control);
      return loop;
    }
    if (loop >= 0) {
      error = errno;
      close(loop);
    }
    if (error != EBUSY) break; /* EBUSY: somebody else was faster */
    sleep_us(1000);
  }
  skip("no loop device: %s", strerror(error));
}

void image_mount(struct image *image) {
  char device[32];
  int loop = attach_loop(image, device);
  if (mount(device, image->place, image->kind, 0, image->options) != 0) {
    int error = errno;
    if (error == ENODEV || error == EPERM || image->options != NULL)
      skip("%s cannot be mounted here: %s", image->kind, strerror(error));
    die("mounting %s: %s", image->kind, strerror(error));
  }
  close(loop);
  image->is_mounted = true;
}

void image_cut(struct image *image) {
  uint32_t how = SHUT_DOWN_WITHOUT_FLUSHING;
  int folder = open(image->place, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) die("%s: %s", image->place, strerror(errno));
  if (ioctl(folder, SHUT_DOWN, &how) != 0)
    skip("%s cannot be shut down here: %s", image->kind, strerror(errno));
  close(folder);
}

void image_unmount(struct image *image) {
  if (!image->is_mounted) return;
  for (int attempt = 0; umount2(image->place, 0) != 0; attempt++) {
    if (errno != EBUSY || attempt == 500)
      die("unmounting %s: %s", image->place, strerror(errno));
    sleep_us(10000); /* a killed process still has it */
  }
  image->is_mounted = false;
}

void image_destroy(struct image *image) {
  image_unmount(image);
  rmdir(image->place);
  close(image->fd);
}
