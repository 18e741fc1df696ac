"""What the end of a writer says of its journals."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.writer_data import make_books, make_home

from ringbuf.records import ORDERBOOK
from ringbuf.ring import Producer
from ringbuf.vitals import Vitals
from writer.dataset import Dataset
from writer.ingest.ring_reader import NO_LIMIT_NS
from writer.publish.coordinator import PublicationCoordinator
from writer.service_report import WriterReport


@pytest.mark.parametrize(
    ("left", "outcome"), [(0, "drained to zero: 5 rows published"), (2, "not published, the journal is kept")]
)
def test_an_end_that_leaves_rows_of_an_hour_does_not_call_it_published(place: Path, left: int, outcome: str) -> None:
    """Two of five rows are kept from the task, as a bug would: the journal has them, and the end says so."""
    home = make_home(place)
    ring = Producer.open(home.ring_path("kis", "orderbook"), ORDERBOOK, 1024)
    vitals = Vitals.create(home.vitals_path("writer"), "writer")
    dataset = Dataset(home, "kr.orderbook", vitals)
    ring.publish(make_books(range(5)))
    dataset.step(NO_LIMIT_NS, NO_LIMIT_NS)
    build = dataset.build_publish_task

    def build_shortened(hour: int, include_unsettled: bool):
        task = build(hour, include_unsettled)
        return task and task._replace(row_to=task.row_to - left)

    dataset.build_publish_task = build_shortened
    report = WriterReport(vitals, home.load_clock(), 30.0)
    coordinator = PublicationCoordinator(
        [dataset], home.load_clock(), vitals, report, lambda: None, home.date_lock_path
    )

    assert outcome in coordinator.publish_all()

    assert sum(bool(segment.newest_rows) for segment in dataset.journal.segments) == bool(left)
    dataset.close()
    ring.close()
