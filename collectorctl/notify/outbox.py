"""Outbox: the lines to send, from one verdict to the next (pure).

    Verdict ──judged()──> lines: a new finding, a recovered one, a loss that has grown ──compose()──> one message

Guarantees:
    * A finding, identified by code and subject, gives one line until it is gone; then one line that it has recovered.
    * A loss that grows or comes again gives a further line, at most every `repeat_s`.
    * The outbox is what its ledger holds: one that is made of a saved ledger repeats nothing.

Not handled here:
    * A loss that leaves the verdict because its day is over gives no line.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import msgspec

from collectorctl.notify.messages import NOTIFY_MESSAGES
from collectorctl.verdict.rules import Finding, Level, Verdict
from conf.clock import to_kst
from conf.text.escape import escape_controls
from conf.text.language import Count, Language, Texts

MAX_LINES = 200
"""Lines that wait for a service that does not answer; the oldest are dropped."""

MAX_MESSAGE_CHARACTERS = 3500
"""Telegram takes 4096, title included; Discord's and Slack's longer texts are split by the library."""

LOOKS = 2
"""Looks in a row at which what repairs itself must be there, and what was reported must be gone."""

_LOSSES = ("ring_loss", "journal_damaged", "blind")
_NOTES_SENT = ("settings_changed", "disk_days")
"""Without effect yet, and without room in a few days."""


class Line(msgspec.Struct, frozen=True):
    """One line to send: `number` 1, 2, ...; `time_ns`: the home's clock; `level`: SAFE for good news."""

    number: int
    time_ns: int
    level: Level
    text: str


class Reported(msgspec.Struct, frozen=True):
    """A finding as a line had it; `time_s`: real seconds since 1970."""

    level: Level
    message: str
    time_s: float


class Ledger(msgspec.Struct):
    """run/notify.json.

    `reported`: by code and subject; `delivered`: the last line that each service has, by fingerprint; `days`: by market, the last
    certified days that gave a line.
    """

    last_number: int = 0
    reported: dict[str, Reported] = {}
    lines: list[Line] = []
    delivered: dict[str, int] = {}
    days: dict[str, str] | None = None


class Outbox:
    """The lines of one home."""

    def __init__(self, ledger: Ledger, min_level: Level, repeat_s: float, language: Language = "en") -> None:
        self.ledger = ledger
        self._texts = Texts(language, NOTIFY_MESSAGES)
        self._min_level = min_level
        self._repeat_s = repeat_s
        self._present: Counter[str] = Counter()  # looks in a row
        self._absent: Counter[str] = Counter()

    def judged(self, verdict: Verdict, is_complete: bool, now_ns: int, now_s: float) -> None:
        """Take a verdict; one that is not complete (without the day's incidents) lets nothing recover."""
        worst: dict[str, Finding] = {}
        for finding in sorted(verdict.findings, key=lambda one: -one.level):
            worst.setdefault(f"{finding.code} {finding.subject}", finding)
        present = {key: finding for key, finding in worst.items() if self._is_sent(finding)}
        self._present = Counter({key: self._present[key] + 1 for key in present})
        for key, finding in present.items():
            if self._is_news(key, finding, now_s):
                self.ledger.reported[key] = Reported(finding.level, finding.message, now_s)
                action = f" -> {finding.action}" if finding.action else ""
                name = finding.level.name if finding.level else self._texts("note")
                self.add(finding.level, f"{name} {key}: {finding.message}{action}", now_ns)
        gone = [key for key in self.ledger.reported if key not in present] if is_complete else []
        self._absent = Counter({key: self._absent[key] + 1 for key in gone})
        for key in gone:
            if self._absent[key] >= LOOKS:
                del self.ledger.reported[key]
                self._add_recovered(key, worst.get(key), now_ns)

    def certified(self, days: dict[str, str], verdict: Verdict, now_ns: int, links: Mapping[str, str]) -> None:
        """Take the last certified days of each market, and the link of its newest report; what a new home finds is no news."""
        known = self.ledger.days
        for market, text in days.items():
            if known is not None and known.get(market) != text:
                link = self._texts("report", link=links[market]) if market in links else ""
                count = Count(sum(finding.level > Level.SAFE for finding in verdict.findings))
                line = self._texts("certified", days=text, level=verdict.level.name, count=count)
                self.add(Level.SAFE, line + link, now_ns)
        self.ledger.days = (known or {}) | days

    def add(self, level: Level, text: str, now_ns: int) -> None:
        """Add a line."""
        self.ledger.last_number += 1
        self.ledger.lines.append(Line(self.ledger.last_number, now_ns, level, escape_controls(text)))
        del self.ledger.lines[:-MAX_LINES]

    def register(self, services: Iterable[str]) -> None:
        """The services that there are; a new one gets what comes from now on."""
        known = self.ledger.delivered
        self.ledger.delivered = {name: known.get(name, self.ledger.last_number) for name in services}

    def pending(self, service: str) -> list[Line]:
        """What a service has not got yet."""
        return [line for line in self.ledger.lines if line.number > self.ledger.delivered[service]]

    def delivered(self, service: str, number: int) -> None:
        """A service has the lines up to this one."""
        self.ledger.delivered[service] = number
        done = min(self.ledger.delivered.values())
        self.ledger.lines = [line for line in self.ledger.lines if line.number > done]

    def _is_sent(self, finding: Finding) -> bool:
        """Whether it is of the level that was asked for; some are notes that a person waits for."""
        return max(finding.level, Level.REPAIRING * (finding.code in _NOTES_SENT)) >= self._min_level

    def _is_news(self, key: str, finding: Finding, now_s: float) -> bool:
        reported = self.ledger.reported.get(key)
        if reported is None:
            return finding.level >= Level.ATTENTION or self._present[key] >= LOOKS
        if finding.level > reported.level:
            return True
        is_loss = finding.code in _LOSSES and finding.message != reported.message
        return is_loss and now_s - reported.time_s >= self._repeat_s

    def _add_recovered(self, key: str, note: Finding | None, now_ns: int) -> None:
        if key.split(" ")[0] not in _LOSSES:
            recovered = self._texts("recovered", key=key)
            self.add(Level.SAFE, f"{recovered}: {note.message}" if note else recovered, now_ns)
        elif note:
            self.add(Level.SAFE, self._texts("acknowledged", key=key, message=note.message), now_ns)


def compose(home: str, lines: list[Line], language: Language = "en") -> tuple[str, str]:
    """Title and text of one message with all these lines, as far as a message goes."""
    worst = max(line.level for line in lines)
    texts, size = [], 0
    for number, line in enumerate(lines):
        text = f"{to_kst(line.time_ns):%H:%M:%S} KST {line.text}"[:MAX_MESSAGE_CHARACTERS]
        size += len(text) + 1
        if size > MAX_MESSAGE_CHARACTERS:
            texts.append(Texts(language, NOTIFY_MESSAGES)("more", count=len(lines) - number))
            break
        texts.append(text)
    return f"collectorctl {home}{f' {worst.name}' if worst else ''}", "\n".join(texts)
