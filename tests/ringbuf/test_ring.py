"""The ring in one process: what it promises to a producer and a consumer, one case after another."""

from __future__ import annotations

import os
import resource
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.small_disk import fill_disk, small_disk

from ringbuf import layout
from ringbuf.records import ORDERBOOK, TICK, empty_records
from ringbuf.ring import FEW, Consumer, Loss, Producer, RingError

SMALL = np.dtype([("seq", "<i8"), ("content", "<i8", (3,))])


def some(first: int, count: int) -> np.ndarray:
    """`count` records whose content says the how-manieth they are."""
    records = np.zeros(count, SMALL)
    records["content"] = np.arange(first, first + count)[:, None]
    return records


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "line.stream.ring"


def open_small(path: Path, capacity: int = 8) -> tuple[Producer, Consumer]:
    return Producer.open(path, SMALL, capacity), Consumer.open(path, SMALL)


def set_word(path: Path, word: int, value: int) -> None:
    with path.open("r+b") as file:
        file.seek(8 * word)
        file.write(value.to_bytes(8, "little", signed=True))


def test_records_come_out_once_in_order_and_numbered_from_one(path: Path) -> None:
    """What is published is read back whole; `seq` counts from 1 and is written into the producer's own array too."""
    producer, consumer = open_small(path)
    sent = some(1, 5)

    producer.publish(sent)
    batch = consumer.read(1, 100)

    assert sent["seq"].tolist() == [1, 2, 3, 4, 5]
    assert np.array_equal(batch.records, sent)
    assert (batch.next_seq, batch.loss) == (6, None)
    assert consumer.read(6, 100).records.size == 0
    assert (consumer.head, consumer.oldest, consumer.capacity) == (5, 1, 8)


def test_an_empty_ring_gives_an_empty_batch(path: Path) -> None:
    """Nothing yet is no error: no records, the same next number, no loss."""
    _, consumer = open_small(path)

    batch = consumer.read(1, 10)

    assert (len(batch.records), batch.next_seq, batch.loss) == (0, 1, None)
    assert (consumer.head, consumer.oldest, consumer.tail) == (0, 1, 1)


def test_no_more_than_asked_for_are_read(path: Path) -> None:
    """`most` bounds a batch; the next one goes on behind it."""
    producer, consumer = open_small(path)
    producer.publish(some(1, 5))

    assert consumer.read(1, 2).next_seq == 3
    assert consumer.read(3, 2).records["seq"].tolist() == [3, 4]
    assert consumer.read(5, 0).next_seq == 5


def test_a_batch_is_the_readers_own_copy(path: Path) -> None:
    """Records read stay as they were when the ring goes on."""
    producer, consumer = open_small(path, 4)
    producer.publish(some(1, 4))
    wrapped_not = consumer.read(1, 4).records
    producer.publish(some(5, 2))
    wrapped = consumer.read(3, 4).records

    producer.publish(some(7, 4))

    assert wrapped_not["content"][:, 0].tolist() == [1, 2, 3, 4]
    assert wrapped["content"][:, 0].tolist() == [3, 4, 5, 6]


def test_a_lapped_reader_learns_exactly_what_it_lost(path: Path) -> None:
    """20 records through 8 slots: 1 to 12 are lost and named, 13 to 20 delivered, and reading goes on."""
    producer, consumer = open_small(path)
    producer.publish(some(1, 3))
    for first in range(4, 21):
        producer.publish(some(first, 1))

    batch = consumer.read(1, 100)
    producer.publish(some(21, 1))

    assert batch.loss == Loss(1, 12)
    assert batch.records["content"][:, 0].tolist() == list(range(13, 21))
    assert consumer.read(batch.next_seq, 100).records["seq"].tolist() == [21]


def test_a_batch_larger_than_the_ring_is_published_whole_and_keeps_its_end(path: Path) -> None:
    """`publish` takes any number of records."""
    producer, consumer = open_small(path)
    sent = some(1, 21)

    producer.publish(sent)

    batch = consumer.read(1, 100)
    assert sent["seq"].tolist() == list(range(1, 22))
    assert batch.loss == Loss(1, consumer.oldest - 1)
    assert batch.records["content"][:, 0].tolist() == list(range(consumer.oldest, 22))
    assert consumer.read(22, 1).loss is None


def test_records_stay_readable_after_they_were_consumed(path: Path) -> None:
    """Look-back: the last `capacity` records can be read again, also by a consumer that attaches later."""
    producer, consumer = open_small(path)
    producer.publish(some(1, 11))
    consumer.commit(12)

    again = Consumer.open(path, SMALL)

    assert (again.tail, again.oldest) == (12, 4)
    assert again.read(4, 100).records["content"][:, 0].tolist() == list(range(4, 12))


class LappedWhileReading(Consumer):
    """A consumer to which something happens between its copy and its second look at the producer's claim."""

    meanwhile: Callable[[], None] = staticmethod(lambda: None)

    def _copy(self, first: int, count: int) -> bytes:
        copy = super()._copy(first, count)
        meanwhile, self.meanwhile = self.meanwhile, lambda: None
        meanwhile()
        return copy


@pytest.mark.parametrize("few", [0, FEW])
@pytest.mark.parametrize("published", [0, 1, 3, 8, 9, 30])
def test_what_was_claimed_during_the_copy_is_lost_and_not_delivered(
    path: Path, monkeypatch: pytest.MonkeyPatch, published: int, few: int
) -> None:
    """A copy may be torn as far as the producer came meanwhile; exactly that far it is dropped and named."""
    monkeypatch.setattr("ringbuf.ring.FEW", few)
    producer, _ = open_small(path)
    producer.publish(some(1, 8))
    consumer = LappedWhileReading.open(path, SMALL)
    consumer.meanwhile = lambda: producer.publish(some(9, published))

    batch = consumer.read(1, 100)

    assert batch.loss == (Loss(1, consumer.oldest - 1) if published else None)
    assert batch.records["content"][:, 0].tolist() == list(range(consumer.oldest, 9))
    rest = consumer.read(batch.next_seq, 100)
    assert rest.loss is None
    assert rest.records["seq"].tolist() == list(range(batch.next_seq, 9 + published))


@given(st.lists(st.integers(0, 12), max_size=8), st.sampled_from([0, FEW]), st.integers(1, 40))
@settings(max_examples=100, deadline=None)
def test_rows_are_published_and_few_records_read_as_arrays_and_many_are(counts: list[int], few: int, most: int) -> None:
    """Rings that got the same as arrays and as packed rows are the same bytes, and both ways to read give the same."""
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr("ringbuf.ring.FEW", few)
        by_array, by_rows = (Producer.open(Path(name) / way, SMALL, 8) for way in ("array", "rows"))
        for count in counts:
            records = some(by_array.head + 1, count)
            by_rows.publish_rows([bytearray(record.tobytes()) for record in records])
            by_array.publish(records)
        first, second = (Path(name, way).read_bytes() for way in ("array", "rows"))
        assert first[layout.RING_HEADER_BYTES :] == second[layout.RING_HEADER_BYTES :]
        assert first[8 * layout.HEAD : 8 * layout.TAIL] == second[8 * layout.HEAD : 8 * layout.TAIL]
        consumer, next_seq = Consumer.open(Path(name) / "rows", SMALL), 1
        while next_seq <= by_rows.head:
            batch = consumer.read(next_seq, most)
            assert batch.loss == (Loss(1, consumer.oldest - 1) if next_seq < consumer.oldest else None)
            assert batch.records["content"][:, 0].tolist() == batch.records["seq"].tolist()
            assert batch.records.flags.writeable
            next_seq = batch.next_seq


def test_a_row_of_another_size_is_refused(path: Path) -> None:
    """Nothing of it becomes visible."""
    producer, consumer = open_small(path)

    with pytest.raises(RingError, match="31 bytes were to be published: a record has 32"):
        producer.publish_rows([bytearray(32), bytearray(31)])

    assert (producer.head, consumer.head) == (0, 0)


def test_a_position_of_another_ring_is_refused(path: Path) -> None:
    """A number beyond the next one, or below 1, was never handed out here; guessing would lose or repeat records."""
    producer, consumer = open_small(path)
    producer.publish(some(1, 3))

    for position in (5, 2**40, 0, -1):
        with pytest.raises(RingError, match="position is of another ring"):
            consumer.read(position, 1)


def slot_word(seq: int) -> int:
    """The first word of the slot of a record of a ring of eight."""
    return (layout.RING_HEADER_BYTES + (seq - 1) % 8 * (SMALL.itemsize + layout.CHECKSUM_BYTES)) // 8


def test_a_damaged_slot_is_a_loss_with_its_number_and_reading_goes_on(path: Path) -> None:
    """Number, content and checksum of a record are checked: what lies before the damage is delivered, then what lies behind it."""
    producer, consumer = open_small(path)
    producer.publish(some(1, 8))
    set_word(path, slot_word(2), 77)
    set_word(path, slot_word(4) + 2, 77)
    set_word(path, slot_word(5) + 4, 77)

    first = consumer.read(1, 100)
    second = consumer.read(first.next_seq, 100)
    third = consumer.read(second.next_seq, 100)

    assert (first.records["seq"].tolist(), first.loss) == ([1], None)
    assert (second.records["seq"].tolist(), second.loss) == ([3], Loss(2, 2, is_damage=True))
    assert (third.records["seq"].tolist(), third.loss) == ([6, 7, 8], Loss(4, 5, is_damage=True))
    producer.publish(some(9, 1))
    assert consumer.read(third.next_seq, 100).records["content"][:, 0].tolist() == [9]


def test_damage_up_to_the_newest_record_is_told_before_more_is_published(path: Path) -> None:
    """Nothing whole lies behind it yet; the hole is complete nevertheless, and the next record is the next one."""
    producer, consumer = open_small(path)
    producer.publish(some(1, 3))
    set_word(path, slot_word(2) + 1, 77)
    set_word(path, slot_word(3) + 1, 77)

    batch = consumer.read(2, 100)

    assert (len(batch.records), batch.next_seq, batch.loss) == (0, 4, Loss(2, 3, is_damage=True))


@pytest.mark.parametrize(("unread", "published_after"), [(8, 0), (8, 1), (3, 3), (0, 2)])
def test_whichever_bit_of_a_ring_turns_over_nothing_wrong_is_delivered_and_what_is_lost_is_named(
    path: Path, monkeypatch: pytest.MonkeyPatch, unread: int, published_after: int
) -> None:
    """Every bit of slots, head and claim, one at a time: right content only, every number once, at most one of them lost."""
    monkeypatch.setattr("ringbuf.ring.RETRY_S", 0)
    producer, consumer = open_small(path)
    producer.publish(some(1, 8))
    consumer.commit(9 - unread)
    intact = path.read_bytes()
    numbers = (layout.HEAD, layout.CLAIM, layout.HEAD_COPY, layout.CLAIM_COPY)
    header_bits = [64 * word + bit for word in numbers for bit in range(64)]
    slot_bits = range(8 * layout.RING_HEADER_BYTES, 8 * len(intact))
    for bit in (*header_bits, *slot_bits):
        producer._mmap[:] = intact
        producer._published = producer._claimed = 8
        producer._mmap[bit // 8] ^= 1 << bit % 8
        delivered: list[int] = []
        lost: list[int] = []
        next_seq = 9 - unread
        for newest in (8, 8 + published_after):
            producer.publish(some(9, newest - 8))
            while next_seq <= newest:
                batch = consumer.read(next_seq, 100)
                assert (batch.records["content"] == batch.records["seq"][:, None]).all()
                assert batch.next_seq > next_seq, f"bit {bit} stops the reader at {next_seq}"
                delivered += batch.records["seq"].tolist()
                lost += range(batch.loss.first_seq, batch.loss.last_seq + 1) if batch.loss else []
                next_seq = batch.next_seq
        assert sorted(delivered + lost) == list(range(9 - unread, 9 + published_after)), f"bit {bit}"
        assert len(lost) <= (bit >= 8 * layout.RING_HEADER_BYTES), f"bit {bit}"


class LappedWhileChecking(Consumer):
    """The producer, which stood between its two stores of the head, goes on once around the ring before the slot is looked at."""

    producer: Producer | None = None

    def _copy(self, first: int, count: int) -> bytes:
        if self.producer is not None:
            producer, self.producer = self.producer, None
            producer.publish(some(9, 8))
        return super()._copy(first, count)


def test_the_head_takes_no_step_back_when_the_producer_goes_on_between_two_looks(path: Path) -> None:
    producer, _ = open_small(path)
    producer.publish(some(1, 8))
    set_word(path, layout.HEAD_COPY, 6)
    consumer = LappedWhileChecking.open(path, SMALL)
    assert consumer.head == 8
    consumer.producer = producer
    assert consumer.head == 16


class SeesStoresLate(Consumer):
    """A consumer on a processor that shows the producer's stores in any order; each copy shows a few more of them."""

    pending: list[tuple[int, bytes]]
    shown_per_copy = 0

    def show(self, count: int) -> None:
        for at, word in self.pending[:count]:
            self._mmap[at : at + 8] = word
        del self.pending[:count]

    def _copy(self, first: int, count: int) -> bytes:
        self.show(self.shown_per_copy)
        return super()._copy(first, count)


def words_stored(before: bytes, after: bytes) -> list[tuple[int, bytes]]:
    """Which words a publish stored, and what."""
    return [(at, after[at : at + 8]) for at in range(0, len(after), 8) if before[at : at + 8] != after[at : at + 8]]


@given(st.data(), st.integers(1, 8), st.integers(1, 8), st.booleans())
@settings(max_examples=150, deadline=None)
def test_in_whatever_order_stores_become_visible_no_record_is_wrong_and_none_is_missing(
    data: st.DataObject, published: int, batch_size: int, lapped: bool
) -> None:
    """arm64 shows stores in any order: word by word, in a random one, what is read is right, and all of it comes once visible."""
    with tempfile.TemporaryDirectory() as name:
        path, seen_path = Path(name) / "ring", Path(name) / "seen"
        producer = Producer.open(path, SMALL, 8)
        producer.publish(some(1, published))
        before = path.read_bytes()
        seen_path.write_bytes(before)
        producer.publish(some(published + 1, batch_size))
        consumer = SeesStoresLate.open(seen_path, SMALL)
        stores = words_stored(before, path.read_bytes())
        consumer.pending = list(data.draw(st.permutations(stores)))
        consumer.show(data.draw(st.integers(0, len(stores))))
        consumer.shown_per_copy = max(1, len(stores) // 5)
        next_seq, delivered, lost = (1 if lapped else published + 1), [], []
        while next_seq <= published + batch_size:
            batch = consumer.read(next_seq, 100)
            consumer.show(1)
            assert (batch.records["content"] == batch.records["seq"][:, None]).all()
            delivered += batch.records["seq"].tolist()
            lost += range(batch.loss.first_seq, batch.loss.last_seq + 1) if batch.loss else []
            assert batch.loss is None or not batch.loss.is_damage
            next_seq = batch.next_seq

        assert sorted(delivered + lost) == list(range(1 if lapped else published + 1, published + batch_size + 1))
        assert set(lost) <= set(range(1, published + batch_size - 8 + 1) if lapped else [])


def test_a_producer_repairs_the_numbers_of_its_header(path: Path) -> None:
    """Head and claim are its own account, not the file's: what was written over them is gone after the next publish."""
    producer, consumer = open_small(path)
    producer.publish(some(1, 3))
    for word in (layout.HEAD, layout.CLAIM, layout.HEAD_COPY, layout.CLAIM_COPY):
        set_word(path, word, 2**40)

    producer.publish(some(4, 1))

    assert consumer.read(1, 9).records["content"][:, 0].tolist() == [1, 2, 3, 4]


def test_a_consumer_waits_for_a_ring_that_does_not_exist(path: Path) -> None:
    """No ring is no fault: FileNotFoundError, and nothing is created."""
    with pytest.raises(FileNotFoundError):
        Consumer.open(path, SMALL)

    assert list(path.parent.iterdir()) == []


def test_a_new_producer_continues_the_numbering(path: Path) -> None:
    """Close and open again: the same file, the same ring_id, the next number."""
    producer, consumer = open_small(path)
    producer.publish(some(1, 3))
    producer.close()

    producer = Producer.open(path, SMALL, 8)
    producer.publish(some(4, 2))

    assert consumer.read(1, 9).records["content"][:, 0].tolist() == [1, 2, 3, 4, 5]
    assert not consumer.is_replaced


def test_a_claim_of_a_dead_producer_is_respected(path: Path) -> None:
    """Killed in the middle of five records: what those may have overwritten is lost, the numbering goes on without a hole."""
    producer, consumer = open_small(path)
    producer.publish(some(1, 8))
    producer._header[layout.CLAIM] = producer._header[layout.CLAIM_COPY] = 13
    producer.slots[:5]["content"] = -1
    producer.close()

    batch = consumer.read(1, 100)
    producer = Producer.open(path, SMALL, 8)
    producer.publish(some(9, 1))

    assert (batch.loss, batch.records["seq"].tolist()) == (Loss(1, 5), [6, 7, 8])
    assert consumer.oldest == 6
    assert consumer.read(6, 100).records["content"][:, 0].tolist() == [6, 7, 8, 9]


def test_whether_a_producer_lives_is_seen_from_its_lock(path: Path) -> None:
    """`producer_alive` follows the producer, also from the consumer's point of view many times over."""
    producer, consumer = open_small(path)

    assert [consumer.is_producer_alive() for _ in range(3)] == [True] * 3
    producer.close()
    assert [consumer.is_producer_alive() for _ in range(3)] == [False] * 3
    producer = Producer.open(path, SMALL, 8)
    assert consumer.is_producer_alive()


def test_a_second_producer_is_refused_and_the_first_one_named(path: Path) -> None:
    """One producer per ring, kept by the file's lock; the first goes on undisturbed."""
    producer, consumer = open_small(path)

    with pytest.raises(RingError, match=f"process {os.getpid()} is writing it: one producer per ring"):
        Producer.open(path, SMALL, 8)

    producer.publish(some(1, 1))
    assert consumer.read(1, 1).next_seq == 2


@pytest.mark.parametrize(
    ("word", "value", "name"),
    [
        (layout.MAGIC, 0, "magic"),
        (layout.VERSION, layout.RING_VERSION + 1, "layout version"),
        (layout.DTYPE, 1, "record layout"),
        (layout.SLOT_BYTES, SMALL.itemsize, "slot size"),
        (layout.CAPACITY, 9, "bytes do not hold 9 records"),
    ],
)
def test_a_ring_of_another_layout_is_refused(path: Path, word: int, value: int, name: str) -> None:
    """Both sides refuse, both versions are named, the file is left as it is."""
    open_small(path)[0].close()
    set_word(path, word, value)
    before = path.read_bytes()

    for attach in (lambda: Producer.open(path, SMALL, 8), lambda: Consumer.open(path, SMALL)):
        with pytest.raises(RingError, match=name) as refusal:
            attach()
        assert str(value) in str(refusal.value)
        assert str(path) in str(refusal.value)

    assert path.read_bytes() == before


def test_a_ring_of_other_records_is_refused(path: Path) -> None:
    """A tick ring is not read as books, whatever the file's name."""
    Producer.open(path, TICK, 8).close()

    with pytest.raises(RingError, match="record layout"):
        Consumer.open(path, ORDERBOOK)


@pytest.mark.parametrize(
    "size", [0, 100, layout.RING_HEADER_BYTES, layout.RING_HEADER_BYTES + (SMALL.itemsize + 8) * 8 - 1]
)
def test_a_truncated_ring_is_refused(path: Path, size: int) -> None:
    """A file that lost its end would be a bus error later; it is a sentence now."""
    open_small(path)[0].close()
    os.truncate(path, size)

    with pytest.raises(RingError, match="delete the file"):
        Consumer.open(path, SMALL)
    with pytest.raises(RingError, match="delete the file"):
        Producer.open(path, SMALL, 8)


def test_records_of_another_dtype_are_not_published(path: Path) -> None:
    """numpy would convert them by position; the ring refuses before anything is claimed."""
    producer, consumer = open_small(path)

    with pytest.raises(RingError, match="another layout"):
        producer.publish(np.zeros(2, np.dtype([("seq", "<i8"), ("content", "<f8", (3,))])))
    with pytest.raises(RingError, match="another layout"):
        producer.publish(empty_records(TICK, 1))

    assert (consumer.head, consumer.oldest) == (0, 1)


def test_a_ring_of_another_capacity_is_replaced_only_when_it_was_consumed(path: Path) -> None:
    """Until then it is continued as it is; the new one counts from 1 under a new ring_id, and a consumer can notice."""
    producer, consumer = open_small(path, 8)
    producer.publish(some(1, 3))
    consumer.commit(3)
    producer.close()

    producer = Producer.open(path, SMALL, 16)
    assert (producer.capacity, producer.head, consumer.is_replaced) == (8, 3, False)
    consumer.commit(4)
    producer.close()

    producer = Producer.open(path, SMALL, 16)
    fresh = Consumer.open(path, SMALL)
    assert (producer.capacity, producer.head, consumer.is_replaced) == (16, 0, True)
    assert fresh.ring_id == producer.ring_id != consumer.ring_id
    assert consumer.read(1, 9).records["seq"].tolist() == [1, 2, 3]


def test_a_ring_that_is_gone_or_another_is_noticed(path: Path) -> None:
    """`replaced` tells both apart from the ring that one has open."""
    producer, consumer = open_small(path)

    assert not consumer.is_replaced
    path.unlink()
    assert consumer.is_replaced
    producer.close()
    Producer.open(path, SMALL, 8)
    assert consumer.is_replaced
    assert not Consumer.open(path, SMALL).is_replaced


def test_the_lock_of_a_replaced_file_is_not_taken_for_the_rings(path: Path) -> None:
    """Opened just before its last producer put another in its place: one ends up in the new file, not in a ghost."""
    open_small(path)[0].close()

    class Late(Producer):
        def _lock(self) -> None:
            if not path.with_suffix(".was").exists():
                path.rename(path.with_suffix(".was"))
                Producer.open(path, SMALL, 8).close()
            super()._lock()

    producer = Late.open(path, SMALL, 8)

    assert not producer.is_replaced


def test_what_a_killed_maker_left_is_neither_truncated_nor_kept(path: Path) -> None:
    """Killed between link() and unlink(), a maker leaves a second name of the live ring: that is removed, its bytes are not."""
    producer, consumer = open_small(path)
    producer.publish(some(1, 2))
    producer.close()
    for left in (f".{path.name}.{os.getpid()}", f".{path.name}.1"):
        os.link(path, path.with_name(left))
    path.unlink()

    Producer.open(path, SMALL, 16)

    assert consumer.read(1, 9).records["seq"].tolist() == [1, 2]
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_ring_is_for_its_owner_only(path: Path) -> None:
    """Mode 0600, whatever the umask."""
    before = os.umask(0)
    try:
        Producer.open(path, SMALL, 8)
    finally:
        os.umask(before)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_all_of_a_ring_is_reserved_at_once(path: Path) -> None:
    """No holes: publishing can never meet a full file system."""
    Producer.open(path, ORDERBOOK, 4096)

    assert (
        path.stat().st_blocks * 512 >= path.stat().st_size == layout.RING_HEADER_BYTES + 4096 * (ORDERBOOK.itemsize + 8)
    )


def test_a_ring_for_which_there_is_no_room_leaves_nothing_behind(path: Path) -> None:
    """The reservation fails as OSError, and neither the ring nor a part of it stays."""
    script = (
        "import sys; from pathlib import Path; from ringbuf.records import TICK; from ringbuf.ring import Producer\n"
        "try: Producer.open(Path(sys.argv[1]), TICK, 4096)\n"
        "except OSError as error: sys.exit(error.errno)"
    )

    def no_large_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    ran = subprocess.run([sys.executable, "-c", script, path], preexec_fn=no_large_files, check=False, timeout=60)

    assert ran.returncode == 27  # EFBIG
    assert list(path.parent.iterdir()) == []


def test_a_ring_of_another_capacity_stays_where_there_is_no_room_for_the_new_one(tmp_path: Path) -> None:
    """A full disk never costs the ring that is there: it is continued, and replaced at a start with room."""
    with small_disk(tmp_path / "disk", 1) as disk:
        path = disk / "small.ring"
        producer, consumer = open_small(path, 8)
        producer.publish(some(1, 3))
        consumer.commit(4)
        producer.close()
        ballast = fill_disk(disk)

        producer = Producer.open(path, SMALL, 4096)
        assert (producer.capacity, producer.head) == (8, 3)
        producer.close()
        ballast.unlink()

        producer = Producer.open(path, SMALL, 4096)
        assert (producer.capacity, producer.head, consumer.is_replaced) == (4096, 0, True)
        assert [found.name for found in disk.iterdir()] == ["small.ring"]


def test_an_attempt_that_fails_leaves_the_ring_unlocked(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same process opens it at its next attempt, instead of calling itself the other producer."""
    open_small(path)[0].close()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "glob", lambda *_: (_ for _ in ()).throw(OSError("Too many open files")))
        with pytest.raises(OSError, match="Too many"):
            Producer.open(path, SMALL, 8)

    assert not Consumer.open(path, SMALL).is_producer_alive()
    Producer.open(path, SMALL, 8)


def delete_directory(path: Path) -> None:
    """As logind's RemoveIPC does: every file, then the directory."""
    for file in path.iterdir():
        file.unlink()
    path.rmdir()


@pytest.mark.parametrize("through_link", [False, True])
def test_a_ring_whose_directory_is_deleted_goes_on_in_a_copy_with_what_was_unread(
    tmp_path: Path, through_link: bool
) -> None:
    """The same ring_id and numbers: a consumer that has the old pages, and one that attaches later, read every record once."""
    directory = tmp_path / "shm"
    directory.mkdir()
    link = tmp_path / "ring"
    link.symlink_to(directory)
    path = (link if through_link else directory) / "kis.tick.ring"
    producer, consumer = open_small(path)
    producer.publish(some(1, 5))
    consumer.commit(3)
    delete_directory(directory)
    producer.publish(some(6, 1))

    assert producer.restore_path()
    assert not producer.restore_path()
    producer.publish(some(7, 1))

    copy = Consumer.open(path, SMALL)
    assert (copy.ring_id, copy.tail, copy.head) == (consumer.ring_id, 3, 7)
    assert copy.read(3, 9).records["content"][:, 0].tolist() == [3, 4, 5, 6, 7]
    assert consumer.read(3, 9).records["content"][:, 0].tolist() == [3, 4, 5, 6]
    assert copy.is_producer_alive() and not consumer.is_producer_alive()
    assert [file.name for file in directory.iterdir()] == [path.name]
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    producer.close()
    assert Producer.open(path, SMALL, 8).head == 7


def test_a_deleted_link_leads_to_the_same_ring_again(tmp_path: Path) -> None:
    """Only the link was removed: the file is where it was, and is not copied."""
    directory = tmp_path / "shm"
    directory.mkdir()
    (tmp_path / "ring").symlink_to(directory)
    producer = Producer.open(tmp_path / "ring" / "kis.tick.ring", SMALL, 8)
    before = (directory / "kis.tick.ring").stat().st_ino
    (tmp_path / "ring").unlink()

    assert not producer.restore_path()

    assert not producer.is_replaced
    assert (tmp_path / "ring" / "kis.tick.ring").stat().st_ino == before


def test_a_directory_that_another_took_meanwhile_is_not_used(tmp_path: Path) -> None:
    """Anybody may write in /dev/shm: a place that others may write in is refused, and the mapped ring goes on."""
    directory = tmp_path / "shm"
    directory.mkdir()
    producer, consumer = open_small(directory / "ring")
    delete_directory(directory)
    directory.mkdir()
    directory.chmod(0o777)

    assert not producer.restore_path()

    assert list(directory.iterdir()) == []
    producer.publish(some(1, 1))
    assert consumer.read(1, 1).records["seq"].tolist() == [1]


def test_without_room_for_a_copy_the_ring_goes_on_and_is_copied_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deleted pages still take their memory: until there is room for the copy, the attached consumer reads the old ones."""
    monkeypatch.setattr("ringbuf.ring.RESTORE_RETRY_S", 0.0)
    with small_disk(tmp_path / "small", 1) as disk:
        directory = disk / "ring"
        directory.mkdir()
        producer, consumer = open_small(directory / "ring", 4096)
        delete_directory(directory)
        filler = fill_disk(disk)
        producer.publish(some(1, 1))
        assert not producer.restore_path()
        assert consumer.read(1, 1).records["seq"].tolist() == [1]
        assert list(directory.iterdir()) == []
        filler.unlink()

        assert producer.restore_path()

        assert Consumer.open(directory / "ring", SMALL).read(1, 9).records["seq"].tolist() == [1]
        producer.close()
        consumer.close()
