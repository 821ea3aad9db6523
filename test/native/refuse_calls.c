/*
 * Put in front of libc, refuses calls as an older kernel would, or one that gives fewer rights:
 * REFUSE is userfaultfd, features or scan; ERRNO is what they then say.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <linux/userfaultfd.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

static int refuses(const char *name) {
  const char *refused = getenv("REFUSE");
  if (refused == NULL || strcmp(refused, name) != 0) return 0;
  errno = atoi(getenv("ERRNO"));
  return 1;
}

long syscall(long number, ...) {
  static long (*next)(long, ...);
  long words[6];
  va_list list;
  va_start(list, number);
  for (int i = 0; i < 6; i++) words[i] = va_arg(list, long);
  va_end(list);
  if (next == NULL) next = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
  if (number == SYS_userfaultfd && refuses("userfaultfd")) return -1;
  return next(number, words[0], words[1], words[2], words[3], words[4], words[5]);
}

int ioctl(int file, unsigned long request, ...) {
  static int (*next)(int, unsigned long, ...);
  va_list list;
  va_start(list, request);
  void *argument = va_arg(list, void *);
  va_end(list);
  if (next == NULL) next = (int (*)(int, unsigned long, ...))dlsym(RTLD_NEXT, "ioctl");
  if (request == UFFDIO_API && refuses("features")) return -1;
  if ((request & 0xffff) == 0x6610 && refuses("scan")) return -1;
  return next(file, request, argument);
}
