"""What `bind` may say, and when two of them are one socket."""

from twisted.trial.unittest import SynchronousTestCase

from mailproxy.config.bind import EndpointString, SocketAddress, clashes, parseBind, tcpAddress


class ParseBindTests(SynchronousTestCase):
    """Texts become addresses or endpoint strings."""

    def test_addresses(self) -> None:
        """An IPv4 address stands bare, an IPv6 address in brackets."""
        self.assertEqual(parseBind("0.0.0.0:993"), SocketAddress("0.0.0.0", 993))
        self.assertEqual(parseBind("[::]:993"), SocketAddress("::", 993))
        self.assertEqual(parseBind("[2001:DB8:0::1]:993"), SocketAddress("2001:db8::1", 993))
        self.assertEqual(parseBind("127.0.0.1:0"), SocketAddress("127.0.0.1", 0))

    def test_endpoints(self) -> None:
        """Twisted's server endpoint strings pass as they are, known or from a plugin."""
        for text in (
            "tcp:993",
            "tcp:993:interface=127.0.0.1",
            "tcp6:port=993",
            "unix:/run/imap.sock:mode=660",
            "systemd:domain=INET:index=0",
            "onion:public_port=993",
        ):
            self.assertEqual(parseBind(text), EndpointString(text))

    def test_mistakesAreNamed(self) -> None:
        """Each kind of mistake has its own advice."""
        for text, advice in {
            "localhost:993": "is not an IP address",
            ":993": "is not an IP address",
            "*:993": "is not an IP address",
            "[mail]:993": "is not an IP address",
            "127.0.0.1:70000": "the port must be",
            "[::1]:99999999999": "the port must be",
            "[127.0.0.1]:993": "brackets are for IPv6",
            "::1:993": "needs brackets",
            "2001:db8::1:993": "needs brackets",
            "[::ffff:192.0.2.1]:993": "write the IPv4 address 192.0.2.1",
            "993": "is not an address",
            "": "is not an address",
            "127.0.0.1": "is not an address",
            "tcp:imap": "is not a TCP endpoint",
            "tcp:993:interface=lo": "is not a TCP endpoint",
            "ssl:993:privateKey=a": "leave TLS to",
            "haproxy:tcp:993": "proxy_protocol",
        }.items():
            with self.subTest(text=text):
                self.assertIn(advice, str(self.assertRaises(ValueError, parseBind, text)))

    def test_aMistakeIsShownOnOneLine(self) -> None:
        """Whatever stands in it."""
        for text in ("a\nb", "127.0.0.1\n:993", "tcp:\0", "ssl:\n", "[::1\n]:1", "::\n:1"):
            said = str(self.assertRaises(ValueError, parseBind, text))
            self.assertTrue(said.isprintable(), said)


class ClashTests(SynchronousTestCase):
    """Two binds that cannot both succeed."""

    def assertClash(self, one: str, other: str, expected: bool = True) -> None:
        """Check both orders."""
        first, second = parseBind(one), parseBind(other)
        self.assertIs(clashes(first, second), expected, (one, other))
        self.assertIs(clashes(second, first), expected, (other, one))

    def test_sameSocket(self) -> None:
        """However it is written."""
        self.assertClash("127.0.0.1:993", "127.0.0.1:993")
        self.assertClash("[::1]:993", "[0:0::1]:993")
        self.assertClash("unix:/run/a", "unix:/run/a")
        self.assertClash("tcp:993:interface=127.0.0.1", "127.0.0.1:993")
        self.assertClash("tcp6:993:interface=\\:\\:1", "[::1]:993")

    def test_wildcardCoversItsFamily(self) -> None:
        """A wildcard takes the port on every address of its family."""
        self.assertClash("0.0.0.0:993", "127.0.0.1:993")
        self.assertClash("[::]:993", "[2001:db8::1]:993")
        self.assertClash("tcp:993", "10.0.0.1:993")

    def test_othersDoNotClash(self) -> None:
        """Ports, addresses and families keep sockets apart; port 0 is a new one each time."""
        self.assertClash("0.0.0.0:993", "0.0.0.0:143", False)
        self.assertClash("0.0.0.0:993", "[::]:993", False)
        self.assertClash("127.0.0.1:993", "127.0.0.2:993", False)
        self.assertClash("127.0.0.1:0", "127.0.0.1:0", False)
        self.assertClash("unix:/run/a", "unix:/run/b", False)
        self.assertClash("systemd:domain=INET:index=0", "0.0.0.0:993", False)

    def test_addressBehindAnEndpoint(self) -> None:
        """What an endpoint string tells of its address; others tell nothing."""
        self.assertEqual(tcpAddress(EndpointString("tcp:port=25")), SocketAddress("0.0.0.0", 25))
        self.assertEqual(tcpAddress(EndpointString("tcp6:25")), SocketAddress("::", 25))
        self.assertIsNone(tcpAddress(EndpointString("systemd:domain=INET:index=0")))
