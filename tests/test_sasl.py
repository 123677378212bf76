"""SASL messages: what is understood, what is refused, and that no secret shows."""

import contextlib
import traceback
from base64 import b64encode

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailproxy.errors import ProtocolError
from mailproxy.sasl import (
    Credentials,
    EmptyCredentials,
    Mechanism,
    SASLError,
    decode,
    dismissal,
    fromPassword,
    initialResponse,
    unbase64,
)

MARK = "s3cr3t"
"""Begins and ends every secret, so that a part of one that is shown is found, too."""
words = st.binary(min_size=1, max_size=40).filter(lambda word: b"\0" not in word)
printable = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=","))
secrets = printable.map(lambda text: MARK + text + MARK)


class SASLCase(SynchronousTestCase):
    """Refusals of messages."""

    def assertRefused(self, mechanism: Mechanism, message: bytes, why: type[SASLError]) -> None:
        """The message is refused for just this reason."""
        try:
            found = decode(mechanism, message)
        except SASLError as error:
            self.assertIs(type(error), why, message)
        else:
            self.fail(f"{message!r} is taken for {found}")


class Base64Tests(SynchronousTestCase):
    """The coat of every SASL message."""

    def test_itComesOff(self) -> None:
        """Whatever bytes there are under it."""

        @given(st.binary())
        def check(message: bytes) -> None:
            self.assertEqual(unbase64(b64encode(message)), message)

        check()

    def test_nonsenseIsRefused(self) -> None:
        """A character outside the alphabet, white space too; bad, early or missing padding."""
        for line in (b"*", b"AAA", b"AA=A", b"A===", b"=", b"AAAA=", b"AA AA", b"AAAA\n", b"AA-_",
                     b"AA==AA==", b"\xff\xff\xff\xff"):  # fmt: skip
            with contextlib.suppress(SASLError):
                self.fail(f"{line!r} is taken for {unbase64(line)!r}")

    def test_anEmptyInitialResponseIsAnEqualsSign(self) -> None:
        """Which stands for nothing only there."""
        self.assertEqual(initialResponse(b"="), b"")
        self.assertEqual(initialResponse(b""), b"")
        self.assertEqual(initialResponse(b"AGE="), b"\0a")
        with self.assertRaises(SASLError):
            initialResponse(b"==")


class PlainTests(SASLCase):
    """PLAIN, and the LOGIN mechanism and commands that become PLAIN."""

    def test_itsPartsAreFound(self) -> None:
        """Authorization, user and password, any bytes but NUL; the message is kept unchanged."""

        @given(st.one_of(st.just(b""), words), words, words)
        def check(authorization: bytes, user: bytes, password: bytes) -> None:
            message = b"\0".join([authorization, user, password])
            found = decode(Mechanism.PLAIN, message)
            self.assertEqual(
                (found.authorization, found.user, found.secret), (authorization, user, password)
            )
            self.assertEqual((found.mechanism, found.response), (Mechanism.PLAIN, message))
            self.assertIsNone(found.token)

        check()

    def test_malformedMessagesAreRefused(self) -> None:
        """Fewer or more than two NUL."""
        for message in (b"", b"user", b"user\0pass", b"\0user\0pass\0", b"a\0b\0c\0d", b"\0\0\0"):
            self.assertRefused(Mechanism.PLAIN, message, SASLError)

    def test_emptyUsersAndPasswordsAreRefused(self) -> None:
        """An empty password must not reach a backend that takes it for an anonymous bind."""
        for message in (b"\0\0", b"\0user\0", b"\0\0pass", b"authz\0\0pass", b"authz\0user\0"):
            self.assertRefused(Mechanism.PLAIN, message, EmptyCredentials)

    def test_aPasswordIsReplayedAsPlain(self) -> None:
        """User and password of a command or of the LOGIN mechanism."""
        found = fromPassword(b"jane@example.com", b"pa ss\xff")
        self.assertEqual(found.response, b"\0jane@example.com\0pa ss\xff")
        self.assertEqual(found.mechanism, Mechanism.PLAIN)
        self.assertTrue(found.asPassword)

    def test_aPasswordThatPlainCannotCarryIsRefused(self) -> None:
        """Injection: a NUL in a name would make it another login."""
        for user, password in ((b"a\0b", b"c"), (b"a", b"b\0c"), (b"victim\0a", b"b")):
            with self.assertRaises(SASLError):
                fromPassword(user, password)
        for user, password in ((b"", b"c"), (b"a", b""), (b"", b"")):
            with self.assertRaises(EmptyCredentials):
                fromPassword(user, password)

    def test_anotherAuthorizationIsMoreThanAPassword(self) -> None:
        """It cannot be replayed by a command that carries just user and password."""
        self.assertTrue(decode(Mechanism.PLAIN, b"jane\0jane\0pass").asPassword)
        self.assertFalse(decode(Mechanism.PLAIN, b"jane\0master\0pass").asPassword)


class TokenTests(SASLCase):
    """OAUTHBEARER and XOAUTH2."""

    def test_aBearersNameAndTokenAreFound(self) -> None:
        """RFC 7628's own example, and one without a name."""
        message = (
            b"n,a=user@example.com,\1host=server.example.com\1port=143\1auth=Bearer vF9dft4\1\1"
        )
        found = decode(Mechanism.OAUTHBEARER, message)
        self.assertEqual((found.authorization, found.user), (b"user@example.com", b""))
        self.assertEqual((found.secret, found.token), (b"vF9dft4", b"vF9dft4"))
        self.assertEqual(found.response, message)
        self.assertFalse(found.asPassword)
        for header in (b"n,,", b"y,,"):
            nameless = decode(Mechanism.OAUTHBEARER, header + b"\1auth=Bearer vF9dft4\1\1")
            self.assertEqual(nameless.authorization, b"")

    def test_aBearersNameIsUnescaped(self) -> None:
        """A comma and an equals sign are written `=2C` and `=3D`; no other escape exists."""
        found = decode(Mechanism.OAUTHBEARER, b"n,a=a=2Cb=3Dc=3D2C,\1auth=Bearer t\1\1")
        self.assertEqual(found.authorization, b"a,b=c=2C")
        for name in (b"a=b", b"a=2c", b"a=2", b"=", b"a=3d"):
            message = b"n,a=" + name + b",\1auth=Bearer t\1\1"
            self.assertRefused(Mechanism.OAUTHBEARER, message, SASLError)

    def test_malformedBearersAreRefused(self) -> None:
        """A bad header, a channel binding that we cannot give, a missing end."""
        for message in (b"", b"\1\1", b"n,a=u,", b"n,a=u,\1auth=Bearer t",
                        b"n,a=u,\1auth=Bearer t\1", b"n,a=u\1auth=Bearer t\1\1",
                        b"p=tls-unique,,\1auth=Bearer t\1\1",
                        b"n,u,\1auth=Bearer t\1\1", b"n,a=a,b,\1auth=Bearer t\1\1",
                        b"x,,\1auth=Bearer t\1\1", b"n,,\1auth=Bearer t\1\1x"):  # fmt: skip
            self.assertRefused(Mechanism.OAUTHBEARER, message, SASLError)

    def test_googlesNameAndTokenAreFound(self) -> None:
        """XOAUTH2's one form; the scheme is compared without case."""
        for scheme in (b"Bearer", b"bearer", b"BEARER"):
            message = b"user=jane@example.com\1auth=" + scheme + b" ya29.vF9dft4\1\1"
            found = decode(Mechanism.XOAUTH2, message)
            self.assertEqual(found.authorization, b"jane@example.com")
            self.assertEqual((found.token, found.user), (b"ya29.vF9dft4", b""))
            self.assertEqual(found.response, message)

    def test_aGoogleMessageMayNameNobody(self) -> None:
        """Then the token tells."""
        found = decode(Mechanism.XOAUTH2, b"auth=Bearer t\1\1")
        self.assertEqual((found.authorization, found.token), (b"", b"t"))

    def test_malformedGoogleMessagesAreRefused(self) -> None:
        """Neither a user nor the token at the front, or a missing end."""
        for message in (b"", b"\1\1", b"host=h\1auth=Bearer t\1\1", b"User=u\1auth=Bearer t\1\1",
                        b"user=u\1auth=Bearer t", b"user=u\1auth=Bearer t\1"):  # fmt: skip
            self.assertRefused(Mechanism.XOAUTH2, message, SASLError)

    def test_aMissingTokenIsTold(self) -> None:
        """No auth field, another scheme, or nothing behind the scheme."""
        for fields in (b"", b"auth=\1", b"auth=Bearer\1", b"auth=Bearer  \1", b"auth=Basic abc\1",
                       b"Auth=Bearer t\1", b"host=Bearer t\1", b"Bearer t\1",
                       b"xauth=Bearer t\1"):  # fmt: skip
            for mechanism, start in (
                (Mechanism.OAUTHBEARER, b"n,a=u,\1"),
                (Mechanism.XOAUTH2, b"user=u\1"),
            ):
                self.assertRefused(mechanism, start + fields + b"\1", EmptyCredentials)

    def test_aRefusalIsDismissedInTheMechanismsOwnWay(self) -> None:
        """One ^A, which is `AQ==` on the wire, or nothing."""
        self.assertEqual(b64encode(dismissal(Mechanism.OAUTHBEARER)), b"AQ==")
        self.assertEqual(dismissal(Mechanism.XOAUTH2), b"")


class SecrecyTests(SynchronousTestCase):
    """Leak: no password or token shows where a log could find it."""

    def assertHidden(self, secret: str, shown: object) -> None:
        """Neither as it is nor in base64."""
        text = f"{shown!r} {shown}"
        if isinstance(shown, BaseException):
            text += "".join(traceback.format_exception(shown))
        self.assertNotIn(secret, text)
        self.assertNotIn(MARK, text)
        self.assertNotIn(b64encode(secret.encode()).decode()[:8], text)

    def test_credentialsShowNothing(self) -> None:
        """Neither the secret nor the names: these are redacted elsewhere."""

        @given(secrets)
        def check(secret: str) -> None:
            token = secret.encode()
            for credentials in (
                fromPassword(b"jane@example.com", token),
                decode(Mechanism.XOAUTH2, b"user=jane@example.com\1auth=Bearer %b\1\1" % token),
                decode(Mechanism.OAUTHBEARER, b"n,a=jane@example.com,\1auth=Bearer %b\1\1" % token),
            ):
                self.assertHidden(secret, credentials)
                self.assertHidden("jane@example.com", credentials)

        check()

    def test_errorsShowNothing(self) -> None:
        """Whatever is wrong around the secret, neither the error nor its traceback quotes it."""
        shapes = (
            "{}", "\0{}", "\0\0{}", "a\0b\0{}\0", "n,a={},\1", "n,a=={},\1auth=Bearer {}\1\1",
            "user={}", "user=u\1auth={}\1\1", "auth=Bearer {}\1\1", "n,,\1auth=Basic {}\1\1",
            "{},,\1auth=Bearer t\1\1",
        )  # fmt: skip

        @given(st.sampled_from(shapes), secrets, st.sampled_from(list(Mechanism)))
        def check(shape: str, secret: str, mechanism: Mechanism) -> None:
            try:
                decode(mechanism, shape.replace("{}", secret).encode())
            except SASLError as error:
                self.assertHidden(secret, error)

        check()

    def test_base64ErrorsShowNothing(self) -> None:
        """Half a message in base64 is half a secret."""
        secret = MARK.encode()
        for line in (b"%b!" % b64encode(secret), b"%b!!!!" % b64encode(secret), secret + b"==="):
            with self.assertRaises(SASLError) as caught:
                unbase64(line)
            self.assertHidden(line.decode(), caught.exception)

    def test_anythingIsCredentialsOrAnError(self) -> None:
        """Garbage raises SASLError and nothing else, which is the peer's mistake."""
        separators = st.sampled_from([b"\0", b"\1", b",", b"=", b"n,a=", b"user=", b"auth=Bearer "])
        garbage = st.lists(st.one_of(separators, st.binary(max_size=8))).map(b"".join)

        @given(
            st.sampled_from([each for each in Mechanism if each is not Mechanism.LOGIN]), garbage
        )
        def check(mechanism: Mechanism, message: bytes) -> None:
            try:
                found = decode(mechanism, message)
            except ProtocolError as error:
                self.assertIsInstance(error, SASLError)
            else:
                self.assertIsInstance(found, Credentials)
                self.assertTrue(found.secret)
                self.assertEqual(found.response, message)

        check()
