"""Errors of supervision, apart from what they come from: the command line knows them before it loads that."""

from __future__ import annotations


class SupervisorError(Exception):
    """supervisord cannot be started, reached or stopped; the message has reason and remedy."""


class SupervisorTimeout(SupervisorError):
    """supervisord takes a call and does not answer in time: it was stopped, or the machine is busy."""
