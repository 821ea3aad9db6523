/*
 * A guest that is its own judge: the only program of a small initramfs, run as init.
 *
 *   1. fill    `fill` MiB of pages
 *   2. dirty   `rate` pages a second get the content of their next generation
 *   3. verify  every page against what its generation says, sweep after sweep
 *   4. report  on the serial port
 *
 * The content of a page is a function of (page number, generation). Generations are kept in
 * a table elsewhere, and their sum in a counter, so a page that was lost, stale, zeroed or
 * swapped is seen, also when the page of the table was lost with it.
 *
 * Kernel command line:
 *   fill=MiB                                    memory to fill (64)
 *   content=random|text|pointer|structured|zero|mixed
 *   rate=PAGES                                  pages rewritten a second (0)
 *   hot=MiB                                     rewrites stay in the first MiB (all)
 *   write=page|words                            rewrite whole pages or one word of them
 *   verify=0|1  sweep=MS                        check memory, a sweep every MS (2000)
 *
 * Serial port: `READY pages`, `TICK counter errors`, `SWEEP number ok`, `SWEEP number bad`,
 * `CORRUPT page=… gen=… word=… want=… have=…`, `CORRUPT sum want=… have=…`.
 */
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <time.h>
#include <unistd.h>

enum {
  PAGE_BYTES = 4096,
  PAGE_WORDS = PAGE_BYTES / 8,
  PAGES_PER_MIB = 256,
  SLICE_NS = 10 * 1000 * 1000,
  TICK_NS = 250 * 1000 * 1000,
  BEHIND_NS_MAX = 250 * 1000 * 1000, /* after a pause, do not make up for all of it */
  CORRUPT_LINES_MAX = 20,
  WORD_SLOTS = 8,
};

typedef uint64_t Page[PAGE_WORDS];
typedef enum { RANDOM, TEXT, POINTER, ZERO, STRUCTURED, MIXED } Content;

static struct {
  uint32_t page_count, hot_count, pages_per_second, sweep_ms;
  Content content;
  int writes_words, verifies;
} options;

static Page *memory;
static uint32_t *generations;
static uint64_t rewrite_count; /* the sum of all generations */
static uint64_t error_count, sweep_count;
static int serial;

static void report(const char *format, ...) {
  char line[160];
  va_list arguments;
  va_start(arguments, format);
  int length = vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  if (write(serial, line, length) != length) _exit(1);
}

static int64_t now_ns(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1000000000ll + time.tv_nsec;
}

/* ---- content: a function of (page, generation), drawn word by word ---- */

/* 64 phrases of 16 bytes. */
static const char passage[64 * 16 + 1] =
    "static int page_is_dirty(struct page *page) { return page->flags"
    "; } Once upon a time there was a guest who wished to live elsew"
    "here, and so it packed its memory into pages, page after page, u"
    "ntil the network was full of them. {\"id\": 1024, \"name\": \"value\""
    ", \"items\": [null, true, false, 3.14159], \"next\": {\"href\": \"http"
    "GET /index.html HTTP/1.1\r\nHost: localhost\r\nAccept: text/html\r\nUs"
    "<div class=\"header\"><span id=\"title\">Migration of virtual machin"
    "2024-01-01T00:00:00.000Z INFO  scheduler: queue depth is 128, wa"
    "2024-01-01T00:00:01.250Z WARN  storage: write took longer than 5"
    "for (size_t index = 0; index < count; index++) { sum += values[i"
    "ndex]; } if (sum > limit) { goto error; } return sum; error: fre"
    "SELECT name, address, created_at FROM customers WHERE country = "
    "'NL' ORDER BY created_at DESC LIMIT 100; INSERT INTO orders VALU"
    "/usr/lib/x86_64-linux-gnu/libc.so.6:/usr/local/bin/program --opt"
    "the quick brown fox jumps over the lazy dog while the slow green"
    " turtle considers whether it should have taken the other path.\n ";

static inline uint64_t mix(uint64_t value) {
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ull;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebull;
  return value ^ (value >> 31);
}

static inline uint64_t next(uint64_t *state) {
  *state = *state * 6364136223846793005ull + 1442695040888963407ull;
  return *state ^ (*state >> 32);
}

static void draw_random(Page page, uint64_t seed) {
  for (int word = 0; word < PAGE_WORDS; word++) page[word] = next(&seed);
}

static void draw_text(Page page, uint64_t seed) {
  for (int word = 0; word < PAGE_WORDS; word += 2) {
    memcpy(&page[word], &passage[(next(&seed) & 63) * 16], 16);
  }
}

/* Records of eight words, as a heap holds them: pointers nearby, small numbers, nothing. */
static void draw_pointers(Page page, uint64_t seed) {
  const uint64_t heap = 0x00007f0000000000ull | (seed & 0xff) << 32;
  for (int word = 0; word < PAGE_WORDS; word += 8) {
    const uint64_t draw = next(&seed);
    page[word + 0] = 0x0000555555554000ull + (draw & 15) * 0x140;
    page[word + 1] = heap + (draw >> 8 & 0xffff) * 64;
    page[word + 2] = heap + (draw >> 8 & 0xffff) * 64 + 0x1000;
    page[word + 3] = draw >> 40 & 0xff;
    page[word + 4] = 0;
    page[word + 5] = draw >> 60;
    page[word + 6] = 0xffffffffffffffffull;
    page[word + 7] = 0;
  }
}

static void draw(Page page, uint32_t number, uint32_t generation) {
  const uint64_t seed = mix((uint64_t)number << 32 | generation);
  Content content = options.content;
  if (content == MIXED) content = (Content)(seed >> 62);
  if (content == STRUCTURED) content = seed >> 63 ? TEXT : POINTER;
  switch (content) {
    case RANDOM: draw_random(page, seed); break;
    case TEXT: draw_text(page, seed); break;
    case POINTER: draw_pointers(page, seed); break;
    default: memset(page, 0, PAGE_BYTES);
  }
}

/* With write=words a page keeps its first content, and generation g is written in slot g % 8:
 * the slot of each generation has a place in the page that depends on the page alone. */
static inline int slot_word(uint32_t number, uint32_t generation) {
  const uint32_t slot = generation % WORD_SLOTS;
  return (int)(slot * (PAGE_WORDS / WORD_SLOTS) + mix(number) % (PAGE_WORDS / WORD_SLOTS));
}

static void draw_words(Page page, uint32_t number, uint32_t generation) {
  draw(page, number, 0);
  const uint32_t count = generation < WORD_SLOTS ? generation : WORD_SLOTS;
  for (uint32_t age = 0; age < count; age++) {
    page[slot_word(number, generation - age)] = mix((uint64_t)number << 32 | (generation - age));
  }
}

/* ---- 2. dirty ---- */

static void rewrite(uint32_t number) {
  const uint32_t generation = ++generations[number];
  rewrite_count++;
  if (options.writes_words) {
    memory[number][slot_word(number, generation)] = mix((uint64_t)number << 32 | generation);
  } else {
    draw(memory[number], number, generation);
  }
}

static uint32_t random_page(void) {
  static uint64_t state = 1;
  return (uint32_t)((next(&state) >> 16 & 0xffffffff) * options.hot_count >> 32);
}

static void dirty_until(int64_t now) {
  static int64_t paid_ns;
  if (options.pages_per_second == 0) return;
  if (now - paid_ns > BEHIND_NS_MAX) paid_ns = now - BEHIND_NS_MAX;
  const int64_t page_ns = 1000000000 / options.pages_per_second;
  for (; paid_ns + page_ns <= now; paid_ns += page_ns) rewrite(random_page());
}

/* ---- 3. verify ---- */

static void report_corruption(uint32_t number, const Page want) {
  int word = 0;
  while (word < PAGE_WORDS - 1 && memory[number][word] == want[word]) word++;
  error_count++;
  if (error_count > CORRUPT_LINES_MAX) return;
  report("\nCORRUPT page=%u gen=%u word=%d want=%016llx have=%016llx\n", number,
         generations[number], word, (unsigned long long)want[word],
         (unsigned long long)memory[number][word]);
}

static void verify_page(uint32_t number) {
  static Page want;
  if (options.writes_words) {
    draw_words(want, number, generations[number]);
  } else {
    draw(want, number, generations[number]);
  }
  if (memcmp(want, memory[number], PAGE_BYTES) != 0) report_corruption(number, want);
}

static void verify_sum(void) {
  uint64_t sum = 0;
  for (uint32_t number = 0; number < options.page_count; number++) sum += generations[number];
  if (sum == rewrite_count) return;
  error_count++;
  report("\nCORRUPT sum want=%llu have=%llu\n", (unsigned long long)rewrite_count,
         (unsigned long long)sum);
}

static void verify_until(int64_t now) {
  static uint32_t cursor;
  static int64_t began_ns;
  static uint64_t errors_before;
  if (!options.verifies) return;
  if (cursor == 0) {
    if (now - began_ns < options.sweep_ms * 1000000ll) return;
    began_ns = now;
    errors_before = error_count;
  }
  const uint32_t slice = options.page_count / (options.sweep_ms / 10) + 1;
  for (uint32_t count = 0; count < slice && cursor < options.page_count; count++) {
    verify_page(cursor++);
  }
  if (cursor < options.page_count) return;
  cursor = 0;
  verify_sum();
  report("\nSWEEP %llu %s\n", (unsigned long long)++sweep_count,
         error_count == errors_before ? "ok" : "bad");
}

/* ---- options, and the flow ---- */

static const char *option(const char *line, const char *name) {
  const size_t length = strlen(name);
  for (const char *at = strstr(line, name); at != NULL; at = strstr(at + 1, name)) {
    if ((at == line || at[-1] == ' ') && at[length] == '=') return at + length + 1;
  }
  return "";
}

static uint32_t number_option(const char *line, const char *name, uint32_t otherwise) {
  const char *text = option(line, name);
  return *text == '\0' ? otherwise : (uint32_t)strtoul(text, NULL, 10);
}

static void read_options(void) {
  static const char *const contents[] = {"random", "text", "pointer", "zero",
                                         "structured", "mixed"};
  static char line[4096];
  const int file = open("/proc/cmdline", O_RDONLY);
  if (file < 0 || read(file, line, sizeof line - 1) < 0) _exit(1);
  close(file);
  options.page_count = number_option(line, "fill", 64) * PAGES_PER_MIB;
  options.hot_count = number_option(line, "hot", 0) * PAGES_PER_MIB;
  if (options.hot_count == 0 || options.hot_count > options.page_count) {
    options.hot_count = options.page_count;
  }
  options.pages_per_second = number_option(line, "rate", 0);
  options.verifies = (int)number_option(line, "verify", 0);
  options.sweep_ms = number_option(line, "sweep", 2000);
  if (options.sweep_ms < 10) options.sweep_ms = 10;
  options.writes_words = strncmp(option(line, "write"), "words", 5) == 0;
  for (int kind = RANDOM; kind <= MIXED; kind++) {
    const char *name = contents[kind];
    if (strncmp(option(line, "content"), name, strlen(name)) == 0) options.content = kind;
  }
}

static void fill(void) {
  const size_t bytes = (size_t)options.page_count * PAGE_BYTES;
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE;
  memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
  generations = calloc(options.page_count, sizeof *generations);
  if (memory == MAP_FAILED || generations == NULL) {
    report("\nFAILED fill=%u MiB does not fit\n", options.page_count / PAGES_PER_MIB);
    for (;;) pause();
  }
  for (uint32_t number = 0; number < options.page_count; number++) draw(memory[number], number, 0);
}

int main(void) {
  mount("proc", "/proc", "proc", 0, NULL);
  mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
  serial = open("/dev/ttyS0", O_WRONLY | O_NOCTTY);
  if (serial < 0) return 1;
  read_options();
  fill();
  report("\nREADY %u\n", options.page_count);

  uint64_t counter = 0;
  for (int64_t tick_ns = now_ns();;) {
    const int64_t now = now_ns();
    dirty_until(now);
    verify_until(now);
    if (now - tick_ns >= TICK_NS) {
      tick_ns = now;
      report("TICK %llu %llu\n", (unsigned long long)++counter, (unsigned long long)error_count);
    }
    const struct timespec rest = {0, SLICE_NS};
    nanosleep(&rest, NULL);
  }
}
