"""Observers of a ring: read-only, any number, unnoticed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from ringbuf.ring import Consumer, Loss, Observer, Producer

SMALL = np.dtype([("seq", "<i8"), ("value", "<i8")])


def make(*values: int) -> np.ndarray:
    records = np.zeros(len(values), SMALL)
    records["value"] = values
    return records


def test_an_observer_maps_the_file_read_only_and_changes_no_byte_of_it(tmp_path: Path) -> None:
    """The descriptor cannot write, the pages cannot be written, and what the consumer committed stays."""
    path = tmp_path / "ring"
    producer = Producer.open(path, SMALL, 8)
    producer.publish(make(10, 11, 12))
    consumer = Consumer.open(path, SMALL)
    consumer.commit(2)
    before = path.read_bytes()

    observers = [Observer.open(path, SMALL) for _ in range(16)]
    read = [observer.read(1, 10).records["value"].tolist() for observer in observers]

    assert read == [[10, 11, 12]] * 16
    assert path.read_bytes() == before
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.pwrite(observers[0].fd, b"\0", 0)
    with pytest.raises(ValueError, match="read-only"):
        observers[0].slots["value"][0] = 1
    assert not hasattr(observers[0], "commit")


def test_an_observer_that_was_overtaken_has_the_exact_numbers_and_goes_on(tmp_path: Path) -> None:
    producer = Producer.open(tmp_path / "ring", SMALL, 8)
    observer = Observer.open(tmp_path / "ring", SMALL)
    for value in range(20):
        producer.publish(make(value))

    batch = observer.read(1, 100)

    assert batch.loss == Loss(1, 12)
    assert batch.records["value"].tolist() == list(range(12, 20))
    assert (observer.has(20), observer.has(21)) == (True, False)
