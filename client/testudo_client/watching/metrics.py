"""The last check as Prometheus metrics, on a loopback address only: no names of columns, no data."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from prometheus_client import CollectorRegistry, Gauge, start_http_server

from testudo_client.watching.watch import Report
from testudo_common.errors import UsageError

STATES = ("steady", "warned", "due", "proposed")
FAMILIES = ("inputs", "outputs", "outcomes")


class WatchMetrics:
    """Gauges of the last check."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._checks = self._gauge("checks", "Checks made, of all versions.")
        self._version = self._gauge("version", "Number of the version in use.")
        self._rows = self._gauge("rows", "Questions in the last check.")
        self._labelled = self._gauge("labelled", "Outcomes in the last check; 0 where they were too few to test.")
        self._flags = self._gauge("flags_in_a_row", "Flagged checks in a row.")
        self._time = self._gauge("last_check_timestamp_seconds", "When the last check was made, Unix time.")
        self._state = self._gauge("state", "1 for the state that watching is in.", "state")
        self._least = self._gauge("least_adjusted_p", "Least p of the last check, corrected; 1 for none.", "family")
        self._flagged = self._gauge("flagged_tests", "Tests of the last check that flagged.", "family")

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"testudo_watch_{name}", text, labels, registry=self.registry)

    def show(self, report: Report) -> None:
        """Take over what a check came to; of one that could not be made only what is in use."""
        self._version.set(report.version)
        self._checks.set(report.remembered.checks)
        self._flags.set(report.remembered.state.flags)
        for state in STATES:
            self._state.labels(state).set(state == report.remembered.state.state)
        if report.found is None:
            return
        self._rows.set(report.found.rows)
        self._labelled.set(report.found.labelled)
        self._time.set(datetime.fromisoformat(report.time).timestamp())
        for family in FAMILIES:
            tests = [test.adjusted for test in report.found.tests if test.family == family]
            self._least.labels(family).set(min(tests, default=1.0))
            self._flagged.labels(family).set(sum(p <= report.found.level for p in tests))

    @contextmanager
    def listening(self, address: str) -> Iterator[int]:
        """Answer at ``HOST:PORT`` meanwhile; the port, which 0 leaves to the system.

        Raises:
            UsageError: It is no loopback address, or somebody listens there.
        """
        host, port = loopback(address)
        try:
            server, thread = start_http_server(port, host, self.registry)
        except OSError as error:
            raise UsageError(
                f"cannot listen there: {error.strerror}", where=f"--metrics {address}", remedy="name another port"
            ) from error
        try:
            yield server.server_port
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def loopback(address: str) -> tuple[str, int]:
    """Host and port of a loopback address.

    Raises:
        UsageError: It is none: whoever can read metrics learns how an owner's data changes.
    """
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        number = int(port)
        inside = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host).is_loopback
    except ValueError:
        inside, number = False, -1
    if not (inside and 0 <= number <= 65535):
        raise UsageError(
            "not an address of this machine alone", where=f"--metrics {address}", remedy="write 127.0.0.1:9109"
        )
    return host, number
