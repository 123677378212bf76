"""IMAP backends with every fault that we know how to have, as scripts by name."""

from tests.integration.scripted import Peer, Script, answering, greeting, saying


def reset(peer: Peer) -> None:
    """Reset the connection instead of a greeting."""
    peer.reset()


def resetAtLogin(peer: Peer) -> None:
    """Reset the connection when the login has come."""
    peer.send(greeting())
    peer.readLine()
    peer.reset()


def atLogin(data: bytes, *, thenHold: bool = False) -> Script:
    """Greet, read the login, say this, and close or keep silent."""

    def script(peer: Peer) -> None:
        peer.send(greeting())
        peer.readLine()
        peer.send(data)
        if thenHold:
            peer.hold()

    return script


def endlessAnswer(peer: Peer) -> None:
    """Answer the login with lines that never end."""
    peer.send(greeting())
    peer.readLine()
    while True:
        peer.send(b"* XNEWS " + b"x" * 1000 + b"\r\n")


def afterSTARTTLS(data: bytes) -> Script:
    """Say this in one segment with the OK; then go on as one should, if the server has TLS."""

    def script(peer: Peer) -> None:
        peer.send(greeting(b"STARTTLS LOGINDISABLED"))
        tag, _, _ = peer.readLine().partition(b" ")
        peer.send(tag + b" OK go on\r\n" + data)
        if peer.upgrade is None:
            peer.hold()
        else:
            peer.startTLS(peer.upgrade)
            peer.answer(b"OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] these")
            peer.answer(b"OK Logged in")
            peer.hold()

    return script


BEFORE_LOGIN = {
    "silence": saying(b"", thenHold=True),
    "closed": saying(b""),
    "reset": reset,
    "halfline": saying(b"* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN"),
    "halflineheld": saying(b"* OK half a li", thenHold=True),
    "longline": saying(b"* OK " + b"x" * 1_000_000, thenHold=True),
    "http": saying(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "preauth": saying(b"* PREAUTH [CAPABILITY IMAP4rev1] you are root\r\n", thenHold=True),
    "bye": saying(b"* BYE too many of you\r\n"),
    "nothingoffered": answering([], capabilities=b"LOGINDISABLED"),
    "literal": saying(b"* OK {1000000}\r\n" + b"y" * 1_000_000, thenHold=True),
}
"""Endpoints without TLS, trusted with passwords, that fail before they are told one."""

AT_LOGIN = {
    "logincloses": atLogin(b""),
    "loginresets": resetAtLogin,
    "loginsilent": atLogin(b"", thenHold=True),
    "loginhalf": atLogin(b"P1 O"),
    "loginbye": atLogin(b"* BYE [UNAVAILABLE] going down\r\n"),
    "loginlong": atLogin(b"* " + b"x" * 1_000_000, thenHold=True),
    "loginendless": endlessAnswer,
    "loginnonsense": atLogin(b"P1 MAYBE try it\r\n", thenHold=True),
}
"""The same, but they fail when they have the login."""

WITHOUT_STARTTLS = {
    "notoffered": answering([], capabilities=b"AUTH=PLAIN SASL-IR"),
    "refused": answering([b"NO not today"], capabilities=b"STARTTLS AUTH=PLAIN SASL-IR"),
    "injected": afterSTARTTLS(b"* CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR\r\n"),
    "notls": afterSTARTTLS(b""),
    "preauthed": saying(b"* PREAUTH [CAPABILITY IMAP4rev1 STARTTLS] in\r\n", thenHold=True),
}
"""Endpoints that are to be upgraded, and must not get a password without that."""
