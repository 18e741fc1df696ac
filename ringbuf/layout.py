"""Byte layout of ring files and vitals pages.

    ring file                                    one cache line (64 bytes) per writer of a word
    0     +----------------------------------+
          | magic  version  dtype  slot_bytes|  fixed at creation
          | capacity  ring_id                |
    64    | head   claim   and a copy of each|  written by the producer
    128   | tail                             |  written by the consumer
    192   | producer_pid  producer_start_ns  |  written on attach
          | moved                            |  1: it goes on in another file, a copy; 0 in a ring that knows no such word
    4096  +----------------------------------+
          | slot 0 | slot 1 | ... capacity-1 |  record n (n = 1, 2, ...) lies in slot (n - 1) % capacity:
          +----------------------------------+  the record, then the CRC-32 of its bytes in 8 bytes

    vitals page, 4096 bytes
    0     | magic version counters_hash pid start_ns heartbeat_mono_ns text_checksum|
    64    | name 32   state 32   detail 384                                 |  UTF-8, zero padded; text_checksum: their CRC-32
    512   | counters   160 x int64                                          |
    1792  | latency    288 x int64, see vitals.py                           |
    4096

All numbers are little-endian int64; the constants below are indexes of 8-byte words unless named `_BYTES` or `_AT`.

Memory order: none is relied on. A store of one aligned word is seen whole or not at all (machine.py); beyond that, x86-64
shows stores in program order, arm64 in any order, and Python has no barrier. So whatever is longer than a word proves itself:
a slot by its record's number and checksum, a text by its checksum, head and claim by their copies. A reader that finds old
and new bytes mixed looks again (ring.py, vitals.py); on arm64 that takes the microseconds until the stores have drained.

Guarantees:
    * A change of any number here comes with a new version, and ring.py and vitals.py refuse another version.
    * Magic, pid and heartbeat of a vitals page keep their words in every version: processes of two versions, as an upgrade has
      them, still tell which of them hangs.
"""

from __future__ import annotations

RING_MAGIC = int.from_bytes(b"CCRING\r\n", "little")
RING_VERSION = 2
MAGIC, VERSION, DTYPE, SLOT_BYTES, CAPACITY, RING_ID = range(6)
HEAD, CLAIM, HEAD_COPY, CLAIM_COPY = 8, 9, 10, 11
TAIL = 16
PRODUCER_PID, PRODUCER_START_NS, MOVED = 24, 25, 26
RING_HEADER_BYTES = 4096
CHECKSUM_BYTES = 8

VITALS_MAGIC = int.from_bytes(b"CCVITAL\n", "little")
VITALS_VERSION = 2
# words 0 and 1 are magic and version, as in a ring
COUNTERS_HASH, PID, START_NS, HEARTBEAT_MONO_NS, TEXT_CHECKSUM = range(2, 7)
NAME_AT, NAME_BYTES = 64, 32
STATE_AT, STATE_BYTES = 96, 32
DETAIL_AT, DETAIL_BYTES = 128, 384
COUNTERS_AT, MAX_COUNTERS = 512, 160
LATENCY_AT, LATENCY_BUCKETS = 1792, 288
VITALS_BYTES = 4096
