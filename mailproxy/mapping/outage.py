"""One line in the log when a store stops answering, and one when it answers again.

Knows when questions were put and how they ended; must not know the store, nor who asked.
"""

from mailproxy.logs import Logger

CALM = 1.0
"""Seconds without a failure before an answer ends an outage: a store that answers only every other
question is still one outage."""


class Outage:
    """Whether the store fails; every time is in the clock's seconds."""

    log = Logger()

    def __init__(self) -> None:
        self._since: float | None = None
        self._latest = 0.0
        self._failures = 0

    def failed(self, now: float, reason: str) -> None:
        """Note a question that failed; the first one of an outage is told.

        :param reason: for the operator, without any identifier.
        """
        self._latest = now
        self._failures += 1
        if self._since is None:
            self._since = now
            self.log.warn(
                "the mapping store cannot tell where accounts are: {reason}", reason=reason
            )

    def answered(self, asked: float, now: float) -> None:
        """Note an answer; it ends an outage if the question was put in the calm after it."""
        if self._since is None or asked < self._latest + CALM:
            return
        self.log.info(
            "the mapping store answers again, after {seconds} s and {failures} failed lookups",
            seconds=round(now - self._since, 1),
            failures=self._failures,
        )
        self._since, self._failures = None, 0
