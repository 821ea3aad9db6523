/*
 * What to do about a failure, by its code: the table of docs/cli.md, in the same words.
 */

const NETWORK = 'is "pagelane receive" running there? Look at address, port and firewall';
const QEMU = "look at QEMU's end of the channel: path, -incoming, permissions";
const STREAM = 'no migration stream: turn off multifd and TLS on this channel';
const PEER = 'the peer broke the protocol: compare the versions of both ends';

const ADVICE: ReadonlyArray<readonly [RegExp, string]> = [
  [/^ERR_PATH_(REFUSED|TIMEOUT|UNREACHABLE|FAILED)$/, NETWORK],
  [/^ERR_PATH_NAME$/, 'correct the name of the host, or give its address'],
  [/^ERR_PATH_LISTEN$/, 'choose an address of this host and a port that is free'],
  [/^ERR_PATH_SECURITY$/, 'give both ends the same key, and neither or both --insecure'],
  [/^ERR_PATHS_EXHAUSTED$/, 'every path was lost: look at the links, and at the log of the peer'],
  [/^ERR_PROTOCOL_VERSION$/, 'the two ends are too far apart: update one'],
  [/^ERR_KEY_FILE$/, 'make the key with "pagelane keygen FILE", or chmod 600 it'],
  [
    /^ERR_THREAD_PRIORITY$/,
    'give a --priority not below that of this process, or the right: CAP_SYS_NICE, or ulimit -e',
  ],
  [/^ERR_THREAD_CPU_SET$/, 'look at the processors of this process: taskset -p, its cpuset'],
  [/^ERR_THREAD$/, 'give fewer --threads, or raise the limit on processes (ulimit -u)'],
  [/^ERR_QEMU_CLOSED$/, "look at the destination QEMU's own log: it says why it gave up"],
  [/^ERR_QEMU_CHANNELS$/, 'multifd off; postcopy-preempt on at the destination too'],
  [/^ERR_QEMU_/, QEMU],
  [/^ERR_STREAM_TRUNCATED$/, 'the source QEMU cancelled, failed or died: ask it (query-migrate)'],
  [
    /^ERR_POSTCOPY_ENDED$/,
    'start neither copy: the destination misses pages; the source keeps its memory until it is quit',
  ],
  [/^ERR_QMP$/, "look at QEMU's monitor: its path, nobody else on it, query-migrate"],
  [/^ERR_PARK_RUNNING$/, 'stop the guest first; something in QEMU still writes to its memory'],
  [/^ERR_PARK_STREAM$/, 'look at QEMU: postcopy-ram on, no xbzrle, multifd, dirty-bitmaps'],
  [/^ERR_TICKET$/, 'look at the file: without it nobody can open what is parked'],
  [/^ERR_RECOVERY$/, "give this guest's ticket, and --recover only where post-copy is paused"],
  [/^ERR_STREAM_POSTCOPY$/, 'this post-copy cannot be read: recover it, without --stage'],
  [/^ERR_STREAM_REQUEST$/, 'give QEMU the same machine and RAM blocks at both ends'],
  [/^ERR_STREAM_/, STREAM],
  [
    /^ERR_BATCH_(REFERENCE|NUMBER)$/,
    'the ends differ in what the destination has: compare their versions, or use --store off',
  ],
  [/^ERR_(BATCH|FRAME)_|^ERR_MESSAGE|^ERR_WINDOW_EXCEEDED$|^ERR_HANDSHAKE$/, PEER],
  [/^ERR_OUT_OF_MEMORY$/, 'give the process more memory, or it less to keep (--store)'],
  [/^ERR_DIGEST$/, 'memory at the destination is not what was sent: do not use it'],
  [
    /^ERR_VERIFY$/,
    'if the destination guest stands still (-S), "quit" there, and interrupt "pagelane send": the ' +
      'source runs on; if it runs, it only looks damaged: quit the source',
  ],
  [
    /^ERR_VERIFY_MEMORY$/,
    'look at --memory: the block as QEMU names it, its file; no post-copy, no multifd',
  ],
  [
    /^ERR_MEMORY_(OPEN|CREATE)$/,
    "look at the memory's file: a regular one, that this process may open",
  ],
  [
    /^ERR_MEMORY_(SIZE|NAME|OVERLAP)$/,
    'look at the blocks: whole pages within their files, names that differ, nothing twice',
  ],
  [
    /^ERR_MEMORY_LAYOUT$/,
    'give the guest the same RAM blocks at both ends: names, sizes, order, page size',
  ],
  [/^ERR_MEMORY_MAP$/, 'look at the rights of its file, and at free huge pages (/proc/meminfo)'],
  [/^ERR_MEMORY_LOST$/, 'look who truncates the memory, and at the room of its file system'],
  [/^ERR_MEMORY_/, 'the embedding program uses memory as it was not opened for, or is closed'],
  [
    /^ERR_DIRTY_LOG_UNSUPPORTED$/,
    "the message says why writes cannot be logged so: use the hypervisor's own log, or hashes",
  ],
  [/^ERR_DIRTY_LOG_/, 'start the dirty log, and copy all memory anew'],
  [
    /^ERR_NOT_CONVERGING$/,
    'add a path, allow a longer downtime, more rounds or bytes, or slow the guest down (throttle)',
  ],
  [/^ERR_GUEST_TIMEOUT$/, 'look at the load of the destination, and at its log'],
  [/^ERR_DEVICE_STATE$/, 'the device state is too large: put what is large into a RAM block'],
  [/^ERR_KEPT_MEMORY$/, 'look at the folder of kept memory: its rights, room and file system'],
  [/^ERR_SESSION_JOINS$/, 'wrong proofs came from there: joins from there are refused for 30 s'],
  [
    /^ERR_(SESSION|CONNECTION)_LIMIT$/,
    'the other end has as many as it may have: wait, or look why',
  ],
  [/^ERR_REFUSED_MORE$/, 'look who connects to this port, and keep them away with a firewall'],
  [/^ERR_SESSION_/, 'look at the log of the peer; it ended the session, or has one already'],
  [/^ERR_CONTROL_DIR$/, 'chmod 700 it, or name another one with PAGELANE_CONTROL_DIR'],
  [/^ERR_CONTROL_SESSION$/, 'look at "pagelane ls", as the user and on the host of the migration'],
  [
    /^ERR_CONTROL_PATH$/,
    'look at "pagelane path ls SESSION"; add a path before the last is removed',
  ],
  [/^ERR_CONTROL_SIDE$/, 'do it at the source'],
  [/^ERR_CONTROL_STAGE$/, 'look at --stage: how many intermediaries there are'],
  [/^ERR_CONTROL_(BUSY|TIMEOUT)$/, 'look at "pagelane path ls SESSION", and try again'],
  [/^ERR_CONTROL_(CLOSED|LISTEN)$/, 'look at "pagelane ls": which processes are there'],
  [
    /^ERR_CONTROL_(REQUEST|VERB|ANSWER)$/,
    'the process runs another version: use its own "pagelane"',
  ],
  [
    /^ERR_JOURNAL$/,
    "look at the file and its folder; if it is damaged, start no copy by it: ask the other side's",
  ],
  [
    /^ERR_HANDOVER_(ABORTED|LOST|TIMEOUT)$/,
    'look at the other side and its log; the guest can be moved again',
  ],
  [/^ERR_HANDOVER_UNDECIDED$/, 'start neither copy; "pagelane status" at the other side tells'],
  [/^ERR_HANDOVER_STATE$/, 'look at "pagelane status JOURNAL"; let an earlier hand-over end first'],
  [/^ERR_HANDOVER_HOOK$/, "look at the guest's hypervisor; then begin its process anew"],
  [/^ERR_STAGING_CONNECT$/, 'is Redis running there? Look at address, firewall, certificates'],
  [
    /^ERR_STAGING_AUTH$/,
    'look at user and password (?password-file=, PAGELANE_REDIS_PASSWORD); the user needs ' +
      '"~pl:* +ping +info +set +getrange +unlink +pexpire +scan"',
  ],
  [
    /^ERR_STAGING_POLICY$/,
    '"CONFIG SET maxmemory-policy noeviction" there: any other may throw pages away',
  ],
  [/^ERR_STAGING_READ_ONLY$/, 'name the main instance, not a replica'],
  [/^ERR_STAGING_(FULL|EXHAUSTED)$/, 'raise maxmemory, or add an intermediary'],
  [/^ERR_STAGING_BUSY$/, 'Redis loads its files, or cannot write them: wait, or look at its log'],
  [/^ERR_STAGING_(LOST|TIMEOUT)$/, 'look at the intermediary, and at the link to it'],
  [
    /^ERR_STAGING_REPLY$/,
    'what answers there is no Redis, or other programs use its "pl:" keys: give it one of its own',
  ],
  [/^ERR_STAGING_PAGES_GONE$/, 'pages can be had nowhere any more: the guest cannot be completed'],
  [/^ERR_STAGING_CLOSED$/, 'the embedding program closed it before it was done'],
  [
    /^ERR_(EXTENT|MANIFEST)_/,
    'look who else may write there, and compare the versions of both ends',
  ],
  [/^ERR_POSTCOPY_PAUSED$/, 'start both ends again, then let QEMU recover (migrate-recover)'],
];

/** What to do about a failure; undefined where its message says all. */
export function adviceOn(code: string): string | undefined {
  return ADVICE.find(([pattern]) => pattern.test(code))?.[1];
}
