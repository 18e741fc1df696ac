"""Notification loop.

    status, incidents ─> verdict ─> Outbox <─> HOME/run/notify.json ─> channels        while judged: ping

Guarantees:
    * A finding is handed to every service within some seconds, whatever other services do.
    * What a service has got is in run/notify.json before anything else is sent to it: the next process does not send it again.
    * The ping is sent only while the verdict can be judged.

Not handled here:
    * A kill between a service's answer and the next write of run/notify.json: the message comes twice.
    * supervisord killed, machine off, disk hanging: nothing is sent then, and neither is the ping.
"""

from __future__ import annotations

import socket
import time

import msgspec
from loguru import logger

from brokers.transport.blocking_call import ShutdownRequested, call_with_heartbeat
from collectorctl.notify.channel import Channel, Message
from collectorctl.notify.outbox import Ledger, Outbox, compose
from collectorctl.recover.schedule.schedule import build_schedules
from collectorctl.recover.schedule.state import LastRun, format_certified_days, load_last_run
from collectorctl.supervision.status import collect_status
from collectorctl.verdict import Evidence, Level, Verdict, collect_evidence, judge
from collectorctl.verdict.rules import STALE_REPORT_S
from conf.files.replacement import PRIVATE, replace_file
from conf.home import Home
from conf.market import KR
from conf.process import ShutdownSignal
from conf.text.language import choose_language
from ringbuf.vitals import ProcessState, Vitals

LOOK_S = 1.0
"""Pause between two looks at the home."""
POLL_S = 0.25
FAILING_S = 300.0
"""A service that has taken nothing for so long makes this process unhealthy."""

_KINDS = {Level.SAFE: "success", Level.REPAIRING: "warning", Level.ATTENTION: "failure", Level.STOPPED: "info"}
MIN_LEVELS = {"repairing": Level.REPAIRING, "attention": Level.ATTENTION}


class Notifier:
    """The process's state from turn to turn."""

    def __init__(
        self, home: Home, stop: ShutdownSignal, vitals: Vitals, services: list[Channel], ping: Channel | None
    ) -> None:
        self._home, self._stop, self._vitals = home, stop, vitals
        self._services, self._ping = services, ping
        table = home.settings.notify
        self._language = choose_language(home.settings.ui.language)
        min_level, repeat_s = MIN_LEVELS[table.min_level], table.repeat_minutes * 60
        self._outbox = Outbox(load_ledger(home), min_level, repeat_s, self._language)
        self._outbox.register(service.fingerprint for service in services)
        self._name = f"{socket.gethostname()}:{home.root.name}"
        self._schedules = [one for one in build_schedules(home.settings, home.load_calendar()) if one.enabled]
        self._saved = b""
        self._ping_s = table.ping_s
        self._next_ping_s = 0.0
        self._fault = ""

    def run(self) -> None:
        """Until a stop is requested."""
        next_look_s = 0.0
        while not self._stop.wait(POLL_S):
            self._vitals.heartbeat()
            self._poll_channels()
            if time.monotonic() >= next_look_s:
                try:
                    self._look()
                except ShutdownRequested:
                    break
                next_look_s = time.monotonic() + LOOK_S
            self._save()
            self._send()
            self._set_state()
        self._poll_channels()
        self._save()

    def _look(self) -> None:
        """Judge the home, and take what is new."""
        try:
            evidence, verdict = call_with_heartbeat(self._judge, self._vitals, self._stop)
            days = {one.name: load_last_run(self._home.data, one.name) for one in self._schedules}
        except ShutdownRequested:
            raise
        except Exception as error:  # noqa: BLE001 whatever it is: it is logged, and without the ping somebody is alarmed
            fault = f"the verdict cannot be judged: {type(error).__name__}: {error}"
            if fault != self._fault:
                logger.error("{}", fault)
            self._fault = fault
            return
        self._fault = ""
        now_ns = evidence.now_ns
        self._outbox.judged(verdict, _has_fresh_day(evidence), now_ns, time.time())
        certified = {name: text for name, last in days.items() if last and (text := format_certified_days(name, last))}
        links = {
            name: link for name, last in days.items() if last and (link := find_report_link(self._home, name, last))
        }
        self._outbox.certified(certified, verdict, now_ns, links)
        if self._ping is not None and self._ping.is_ready and time.monotonic() >= self._next_ping_s:
            self._next_ping_s = time.monotonic() + self._ping_s
            self._ping.start(Message("info", "", ""))

    def _judge(self) -> tuple[Evidence, Verdict]:
        self._home.take_up_list()
        evidence = collect_evidence(self._home, collect_status(self._home, self._language))
        return evidence, judge(evidence, self._home.load_calendar(), self._language)

    def _poll_channels(self) -> None:
        for service in self._services:
            if (message := service.poll()) is not None:
                self._outbox.delivered(service.fingerprint, message.number)
                self._vitals.add("messages")
                logger.info("{}: delivered up to line {}", service.name, message.number)
        if self._ping is not None and self._ping.poll() is not None:
            self._vitals.add("pings")

    def _send(self) -> None:
        for service in self._services:
            if service.is_ready and (lines := self._outbox.pending(service.fingerprint)):
                kind = _KINDS[max(line.level for line in lines)]
                service.start(Message(kind, *compose(self._name, lines, self._language), lines[-1].number))

    def _save(self) -> None:
        text = msgspec.json.encode(self._outbox.ledger)
        if text == self._saved:
            return
        try:
            replace_file(self._home.notify_ledger_path(), text, PRIVATE)
        except OSError as error:  # a full disk is what has to be sent
            logger.warning("{}: a restart would send again what was sent since", error)
        self._saved = text

    def _set_state(self) -> None:
        channels = [*self._services, *([self._ping] if self._ping else [])]
        now_s = time.monotonic()
        failing = [one.name for one in channels if one.failing_since_s and now_s - one.failing_since_s > FAILING_S]
        if self._fault or failing:
            detail = self._fault or f"{', '.join(failing)}: not reached for {FAILING_S / 60:.0f} minutes or more"
            self._vitals.set_state(ProcessState.FAILING, detail)
            return
        count = self._vitals.get
        waiting = sum(len(self._outbox.pending(one.fingerprint)) for one in self._services)
        detail = f"{count('messages')} messages sent, {waiting} lines wait, {count('pings')} pings"
        self._vitals.set_state(ProcessState.RUNNING, detail)


def load_ledger(home: Home) -> Ledger:
    """What was sent before; a new ledger where there is none, or none that can be read."""
    try:
        return msgspec.json.decode(home.notify_ledger_path().read_bytes(), type=Ledger)
    except FileNotFoundError:
        return Ledger()
    except (OSError, msgspec.MsgspecError) as error:
        logger.warning("{}: {}: what was sent before is unknown", home.notify_ledger_path(), error)
        return Ledger()


def find_report_link(home: Home, name: str, last: LastRun) -> str:
    """Where the page of the newest day of a run is; "" if it has none."""
    newest = max(last.days, default=None)
    path = home.report_path(newest) if newest and name == KR.name else None
    if path is None or not path.exists():
        return ""
    url = home.settings.notify.report_url
    return f"{url.rstrip('/')}/{path.name}" if url else str(path)


def _has_fresh_day(evidence: Evidence) -> bool:
    """Whether the day's incidents are known as of now."""
    return evidence.status.day is not None and (evidence.status.day_age_s or 0.0) <= STALE_REPORT_S
