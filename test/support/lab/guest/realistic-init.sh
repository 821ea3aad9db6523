#!/bin/sh
# Init of the realistic guests: a small Debian that works all the time.
#
#   guest=compile   compiles C files, one after another
#   guest=redis     redis-server with a client that sets and gets
#
# Writes READY once it is at work, `TICK counter errors` twice a second; errors are programs
# that failed.

export PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C
mount -t proc proc /proc
mount -t devtmpfs devtmpfs /dev
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /run
exec >/dev/ttyS0 2>&1 </dev/null
ip link set lo up

errors=/run/errors
: >$errors
note_error() { echo "$*" >>$errors; echo "FAILED $*"; }

# A C file of many small functions that differ; $1 is its seed.
write_source() {
  awk -v seed="$1" 'BEGIN {
    srand(seed)
    print "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>"
    for (number = 0; number < 120; number++) {
      a = int(rand() * 1000); b = int(rand() * 1000) + 1
      printf "struct s%d { int id; char name[%d]; struct s%d *next; };\n", number, b, number
      printf "int f%d(struct s%d *s, int n) {\n", number, number
      printf "  int sum = %d;\n  for (int i = 0; i < n; i++) {\n", a
      printf "    sum += s->id %% %d + (i ^ sum);\n    if (s->next) s = s->next;\n", b
      printf "    else s->next = calloc(1, sizeof *s);\n  }\n"
      printf "  snprintf(s->name, sizeof s->name, \"value %d %%d\", sum);\n", a
      printf "  return (int)strlen(s->name) + sum;\n}\n"
    }
  }' >"$2"
}

compile() {
  mkdir -p /sources
  seed=0
  while :; do
    seed=$((seed + 1))
    # Sixteen sources and their objects stay: new ones take the place of the oldest.
    name=/sources/file$((seed % 16))
    write_source $seed $name.c
    gcc -O1 -c -o $name.o $name.c || note_error "gcc $seed"
    [ $seed = 1 ] && echo READY
  done
}

redis() {
  redis-server --save '' --appendonly no --bind 127.0.0.1 --maxmemory 160mb \
    --maxmemory-policy allkeys-random --logfile /run/redis.log &
  until redis-cli ping >/dev/null 2>&1; do sleep 0.2; done
  redis-benchmark -q -t set -n 40000 -r 100000 -d 1024 -P 32 >/dev/null || note_error fill
  echo READY
  while :; do
    redis-benchmark -q -t set,get -n 20000 -r 100000 -d 1024 -P 8 >/dev/null || note_error load
  done
}

case " $(cat /proc/cmdline) " in
  *" guest=redis "*) redis & ;;
  *) compile & ;;
esac

counter=0
while :; do
  counter=$((counter + 1))
  echo "TICK $counter $(wc -l <$errors)"
  sleep 0.5
done
