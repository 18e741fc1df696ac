"""What a subscriber missed, by the numbers of its topics (pure).

    message 5, message 9          -> Missed 6 to 8
    message 9, heads that name 12 -> Missed 10 to 12
    epoch A, epoch B              -> Restarted, and everything of B from 1 on is due

Guarantees:
    * The stream of a topic begins with its first message or with the first heads, whichever comes first. From then on each number
      is taken once, is Missed once, or is behind a Restarted.
    * What comes again, as a snapshot for another subscriber does, is not new.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple


class Missed(NamedTuple):
    """Messages `first` to `last` of a topic, both included, that were dropped on the way and can no longer be had.

    The publisher sent them between `begin_ns` and `end_ns` (ns of the home's clock).
    """

    topic: str
    epoch: int
    first: int
    last: int
    begin_ns: int
    end_ns: int


class Restarted(NamedTuple):
    """The publisher began anew: what it sent and what was received between `begin_ns` and `end_ns` may have been missed.

    How much is unknown. What was before `begin_ns` came, or was Missed.
    """

    epoch: int
    new_epoch: int
    begin_ns: int
    end_ns: int


class Arrival(NamedTuple):
    """What a message shows: losses before it, whether it is new, and whether its topic begins with it."""

    losses: list[Missed | Restarted]
    is_new: bool = True
    is_first: bool = False


class SequenceTracker:
    """The numbers of all topics that are wanted."""

    def __init__(self, is_wanted: Callable[[str], bool]) -> None:
        self._is_wanted = is_wanted
        self._epoch: int | None = None
        self._taken: dict[str, int] = {}
        self._only_counted: set[str] = set()
        """Topics that the heads named before any message of them came."""
        self.has_begun = False
        """Whether a topic that is not known yet is due from 1 on."""
        self._complete_ns = 0
        """Up to when everything that was sent is known to be taken or missed."""

    def take(self, topic: str, epoch: int, topic_seq: int, recv_ns: int, at_ns: int) -> Arrival:
        """A message of a topic that is wanted; `recv_ns`: of what it says, or `at_ns` where that has none."""
        losses = self._enter(epoch, min(recv_ns, at_ns), at_ns)
        if topic not in self._taken and not self.has_begun:
            self._taken[topic] = topic_seq
            return Arrival(losses, is_first=True)
        taken = self._taken.get(topic, 0)
        if topic_seq == taken and topic in self._only_counted:
            self._only_counted.remove(topic)
            return Arrival(losses, is_first=True)
        self._only_counted.discard(topic)
        if topic_seq <= taken:
            return Arrival(losses, is_new=False)
        if topic_seq > taken + 1:
            losses.append(Missed(topic, epoch, taken + 1, topic_seq - 1, self._complete_ns, at_ns))
        self._taken[topic] = topic_seq
        return Arrival(losses)

    def take_heads(self, epoch: int, topics: Mapping[str, int], at_ns: int) -> list[Missed | Restarted]:
        """The newest number of every topic; what it shows to be missed."""
        losses = self._enter(epoch, at_ns, at_ns)
        for topic, head in topics.items():
            if not self._is_wanted(topic):
                continue
            if topic not in self._taken and not self.has_begun:
                self._taken[topic] = head
                self._only_counted.add(topic)
            taken = self._taken.get(topic, 0)
            if head > taken:
                losses.append(Missed(topic, epoch, taken + 1, head, self._complete_ns, at_ns))
            self._taken[topic] = max(head, taken)
        self.has_begun = True
        self._complete_ns = at_ns
        return losses

    def _enter(self, epoch: int, begin_ns: int, at_ns: int) -> list[Missed | Restarted]:
        """Follow the publisher into another epoch."""
        if epoch == self._epoch:
            return []
        former, self._epoch = self._epoch, epoch
        if former is None:
            self._complete_ns = begin_ns
            return []
        restarted = Restarted(former, epoch, self._complete_ns, at_ns)
        self._taken.clear()
        self._only_counted.clear()
        self.has_begun = True
        self._complete_ns = epoch
        return [restarted]
