"""The ring against a model: any history of publishing, dying, reading and looking back, on rings of 1 to 9 records."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ringbuf import layout
from ringbuf.ring import Batch, Consumer, Loss, Producer

SMALL = np.dtype([("seq", "<i8"), ("content", "<i8", (3,))])


def some(first: int, count: int) -> np.ndarray:
    """`count` records whose content says the how-manieth they are."""
    records = np.zeros(count, SMALL)
    records["content"] = np.arange(first, first + count)[:, None]
    return records


class AgainstAModel(RuleBasedStateMachine):
    """Any sequence of publishing, dying, reading, looking back and reopening, against a list of what was published."""

    @initialize(capacity=st.integers(1, 9))
    def begin(self, capacity: int) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name) / "ring"
        self.capacity = capacity
        self.producer = Producer.open(self.path, SMALL, capacity)
        self.consumer = Consumer.open(self.path, SMALL)
        self.published = 0
        self.claimed = 0
        self.next_seq = 1
        self.accounted: list[int] = []

    def _expected_oldest(self) -> int:
        return max(1, self.claimed - self.capacity + 1)

    @rule(count=st.integers(0, 20))
    def publish(self, count: int) -> None:
        self.producer.publish(some(self.published + 1, count))
        # in parts of the ring's size, each of which claims its own end
        self.published += count
        self.claimed = max(self.claimed, self.published)

    @rule(more=st.integers(1, 9), written=st.integers(0, 9))
    def die_while_publishing(self, more: int, written: int) -> None:
        """What a SIGKILL between the claim and the new head leaves."""
        more = min(more, self.capacity)
        self.claimed = max(self.claimed, self.published + more)
        self.producer._header[layout.CLAIM] = self.producer._header[layout.CLAIM_COPY] = self.claimed
        for seq in range(self.published + 1, self.published + 1 + min(written, more)):
            self.producer.slots[(seq - 1) % self.capacity] = (seq, -1)
        self.reopen_producer()

    @rule()
    def reopen_producer(self) -> None:
        self.producer.close()
        self.producer = Producer.open(self.path, SMALL, self.capacity)

    @rule()
    def reopen_consumer(self) -> None:
        self.consumer.close()
        self.consumer = Consumer.open(self.path, SMALL)

    @rule(most=st.integers(0, 12))
    def read_on(self, most: int) -> None:
        batch = self._check_read(self.next_seq, most)
        if batch.loss:
            self.accounted += range(batch.loss.first_seq, batch.loss.last_seq + 1)
        self.accounted += batch.records["seq"].tolist()
        self.next_seq = batch.next_seq
        self.consumer.commit(self.next_seq)

    @rule(back=st.integers(0, 30), most=st.integers(0, 30))
    def look_back(self, back: int, most: int) -> None:
        self._check_read(max(1, self.published + 1 - back), most)

    def _check_read(self, begin: int, most: int) -> Batch:
        batch = self.consumer.read(begin, most)
        first = max(begin, self._expected_oldest())
        wanted = list(range(first, min(self.published, first + most - 1) + 1))
        assert batch.records["seq"].tolist() == wanted
        assert batch.records["content"].tolist() == [[seq] * 3 for seq in wanted]
        assert batch.loss == (Loss(begin, first - 1) if first > begin else None)
        assert batch.next_seq == first + len(wanted)
        return batch

    @invariant()
    def every_number_is_accounted_for_once(self) -> None:
        assert self.accounted == list(range(1, self.next_seq))
        assert (self.consumer.head, self.consumer.oldest) == (self.published, self._expected_oldest())
        assert self.consumer.tail == self.next_seq

    def teardown(self) -> None:
        if hasattr(self, "producer"):
            self.producer.close()
            self.consumer.close()
            self.directory.cleanup()


AgainstAModel.TestCase.settings = settings(
    max_examples=150, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
test_any_history_is_delivered_exactly_once_or_named_as_lost = AgainstAModel.TestCase
