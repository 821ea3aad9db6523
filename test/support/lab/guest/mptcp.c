/*
 * Preloaded library that makes an unmodified program use MPTCP: every TCP socket it
 * opens is opened with protocol 262. Built by `scripts/setup lab`.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netinet/in.h>
#include <stddef.h>
#include <sys/socket.h>

enum { PROTOCOL_MPTCP = 262, TYPE_FLAGS = SOCK_NONBLOCK | SOCK_CLOEXEC };

int socket(int domain, int type, int protocol) {
  static int (*next)(int, int, int);
  if (next == NULL) next = (int (*)(int, int, int))dlsym(RTLD_NEXT, "socket");
  int is_internet = domain == AF_INET || domain == AF_INET6;
  int is_stream = (type & ~TYPE_FLAGS) == SOCK_STREAM;
  if (is_internet && is_stream && (protocol == 0 || protocol == IPPROTO_TCP)) {
    protocol = PROTOCOL_MPTCP;
  }
  return next(domain, type, protocol);
}
