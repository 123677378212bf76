"""A leg that carries messages: heads and bodies in, and how much the other end has yet to take.

Knows where a head ends and how bytes wait; must not know what a message means.
"""

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from mailproxy.errors import PeerGone
from mailproxy.http import heads
from mailproxy.http.bodies import Body
from mailproxy.http.heads import BadMessage
from mailproxy.stream import MAX_UNREAD, Stream

_END = b"\r\n\r\n"


class HTTPLeg(Stream):
    """One connection that messages are read from and written to.

    Both directions go on by themselves: a peer that does not take what we write is still read,
    since it may wait for us to read before it takes anything.

    :cvar emptyLines: how many are passed over before a head.
    :ivar blocked: whether enough has been written that the peer has not taken.
    """

    blocked = False
    emptyLines = 0
    _waiter: Deferred[None] | None = None
    _headLimit = MAX_UNREAD
    _mayBeEmpty = 0

    # Reading

    def readable(self) -> Deferred[bytes]:
        """Wait for the next byte, which stays unread.

        :raises PeerGone: when the peer goes before.
        """
        return self._read(lambda: b"" if self._buffer else None)

    def readHead(self, limit: int) -> Deferred[bytes]:
        """Read a head, without the empty line that ends it and the line end before that.

        :param limit: bytes that it may have.
        :raises BadMessage: when it is longer, or cannot become a good one.
        :raises PeerGone: when the peer goes before it is whole.
        """
        self._headLimit, self._mayBeEmpty = limit, self.emptyLines
        self.maxUnread = max(MAX_UNREAD, limit + len(_END))
        return self._read(self._takeHead)

    def _takeHead(self) -> bytes | None:
        buffer = self._buffer
        if self._mayBeEmpty and buffer.startswith(b"\r\n"):
            self._mayBeEmpty -= 1
            self._cut(2)
        end = buffer.find(_END, self._searched, self._headLimit)
        if end >= 0 and not buffer.startswith(b"\r\n"):
            head = bytes(buffer[:end])
            self._cut(end + len(_END))
            return head
        if len(buffer) >= self._headLimit:
            raise BadMessage("a head that is too long", 431)
        if len(buffer) > 1 or bytes(buffer[:1]) not in (b"", b"\r"):
            heads.inspectPart(buffer, self._searched)
        self._searched = max(0, len(buffer) - len(_END) + 1)
        return None

    async def readBody(self, body: Body) -> bytes:
        """Read what comes next of a body; empty at its end.

        :raises BadMessage: when its framing is broken.
        :raises PeerGone: when the peer goes before its end.
        """
        while not body.ended:
            payload = self.takeBody(body)
            if payload or body.ended:
                return payload
            try:
                await self.readable()
            except PeerGone as gone:
                self._endBody(body, gone)
        return b""

    def takeBody(self, body: Body) -> bytes:
        """Read what is here of a body, without waiting."""
        if body.ended or not self._buffer:
            return b""
        payload, rest = body.feed(self.takeUnread())
        if rest:
            self.putBack(rest)
        return payload

    def _endBody(self, body: Body, gone: PeerGone) -> None:
        """Take the connection's end for the body's, if it has been ended and not lost."""
        if gone.__cause__ is not None and not self._finished:
            raise gone
        try:
            body.close()
        except BadMessage:
            raise gone from None

    @property
    def _finished(self) -> bool:
        """Whether the peer has closed the connection in good order."""
        return self._lost is not None and self._lost.check(ConnectionDone) is not None

    # Writing

    @property
    def untaken(self) -> int:
        """While `blocked`: a count that changes when the peer takes some of what was written."""
        return self._untaken() if self.blocked else 0

    def drained(self) -> Deferred[None]:
        """Wait until the peer has taken most of what was written.

        :raises PeerGone: when it goes before.
        """
        if self.lost:
            return fail(self._gone())
        if not self.blocked:
            return succeed(None)
        self._waiter = Deferred(self._forgetWaiter)
        return self._waiter

    def _forgetWaiter(self, _: Deferred[None]) -> None:
        self._waiter = None

    def pauseProducing(self) -> None:
        """Hear that the peer does not take what we write."""
        self.blocked = True

    def resumeProducing(self) -> None:
        """Hear that it has."""
        self.blocked = False
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.callback(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Fail whoever waits for the peer to take something."""
        super().connectionLost(reason)  # may have cancelled it
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.errback(self._gone())
