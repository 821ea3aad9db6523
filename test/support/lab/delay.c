/*
 * A wire that takes time: joins two namespaces by a network device in each, and brings every
 * packet that one sends to the other after a fixed time, in order. Built by delay.ts.
 *
 *   delay DEVICE SOURCE_NAMESPACE DESTINATION_NAMESPACE DELAY_MICROSECONDS QUEUE_BYTES
 *
 * Writes "ready" when both devices are there; they vanish with the process. What a direction
 * has under way is bounded by QUEUE_BYTES: then packets wait in the device that sends them,
 * whose queue drops what is too much. Segments and checksums stay unfinished, as on a veth
 * pair, so that a packet may hold 64 KiB.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum {
  PACKET_BYTES_MAX = 10 + 14 + 4 + 65535, /* virtio header, Ethernet header and tag, IP */
  BATCH_PACKETS = 64,
  SLACK_NANOSECONDS = 1000,
};
static const uint64_t kNever = UINT64_MAX;

struct packet {
  struct packet *next;
  uint64_t due;
  size_t length;
  unsigned char bytes[];
};

struct direction {
  int from;
  int to;
  struct packet *first;
  struct packet *last;
  size_t queued;
};

static uint64_t delay;
static size_t queue_bytes_max;

static void fail(const char *what) {
  fprintf(stderr, "delay: %s: %s\n", what, strerror(errno));
  exit(1);
}

static uint64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void enter(const char *namespace) {
  char path[256];
  snprintf(path, sizeof path, "/run/netns/%s", namespace);
  int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0 || setns(file, CLONE_NEWNET) != 0) fail(path);
  close(file);
}

static int open_device(const char *name, const char *namespace) {
  enter(namespace);
  int file = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (file < 0) fail("/dev/net/tun");
  struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
  snprintf(request.ifr_name, sizeof request.ifr_name, "%s", name);
  if (ioctl(file, TUNSETIFF, &request) != 0) fail(name);
  unsigned long offloads = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
  if (ioctl(file, TUNSETOFFLOAD, offloads) != 0) fail("offloads");
  return file;
}

static int has_room(const struct direction *direction) {
  return direction->queued + PACKET_BYTES_MAX <= queue_bytes_max;
}

/* Takes what was sent, at most a batch, and notes when it is due. */
static void take(struct direction *direction) {
  static unsigned char bytes[PACKET_BYTES_MAX];
  for (int count = 0; count < BATCH_PACKETS && has_room(direction); count++) {
    ssize_t length = read(direction->from, bytes, sizeof bytes);
    if (length <= 0) return; /* nothing there, or the device is down */
    struct packet *packet = malloc(sizeof *packet + (size_t)length);
    if (packet == NULL) fail("memory");
    packet->next = NULL;
    packet->due = now() + delay;
    packet->length = (size_t)length;
    memcpy(packet->bytes, bytes, (size_t)length);
    if (direction->first == NULL) direction->first = packet;
    else direction->last->next = packet;
    direction->last = packet;
    direction->queued += packet->length;
  }
}

/* Brings what is due. A device that is down takes nothing: its packets are lost. */
static void bring(struct direction *direction) {
  uint64_t time = now();
  while (direction->first != NULL && direction->first->due <= time) {
    struct packet *packet = direction->first;
    if (write(direction->to, packet->bytes, packet->length) < 0 && errno == EAGAIN) return;
    direction->first = packet->next;
    direction->queued -= packet->length;
    free(packet);
  }
}

static uint64_t due(const struct direction *direction) {
  return direction->first == NULL ? kNever : direction->first->due;
}

int main(int count, char **words) {
  if (count != 6) {
    fprintf(stderr, "delay: expected DEVICE SOURCE DESTINATION DELAY_MICROSECONDS QUEUE_BYTES\n");
    return 2;
  }
  int source = open_device(words[1], words[2]);
  int destination = open_device(words[1], words[3]);
  delay = strtoull(words[4], NULL, 10) * 1000;
  queue_bytes_max = strtoull(words[5], NULL, 10);
  prctl(PR_SET_TIMERSLACK, SLACK_NANOSECONDS);
  struct direction there = {.from = source, .to = destination};
  struct direction back = {.from = destination, .to = source};
  puts("ready");
  fflush(stdout);
  for (;;) {
    struct pollfd polled[] = {
        {.fd = source, .events = has_room(&there) ? POLLIN : 0},
        {.fd = destination, .events = has_room(&back) ? POLLIN : 0},
    };
    uint64_t next = due(&there) < due(&back) ? due(&there) : due(&back);
    uint64_t time = now();
    uint64_t wait = next > time ? next - time : 0;
    struct timespec timeout = {
        .tv_sec = (time_t)(wait / 1000000000u), .tv_nsec = (long)(wait % 1000000000u)};
    if (ppoll(polled, 2, next == kNever ? NULL : &timeout, NULL) < 0 && errno != EINTR) {
      fail("poll");
    }
    take(&there);
    take(&back);
    bring(&there);
    bring(&back);
  }
}
