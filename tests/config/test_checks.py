"""What must hold between tables: one test for each rule that keeps the proxy from starting."""

from tests.config.support import MINIMAL, TOKEN, ConfigTestCase, changed

HTTP_ENDPOINT = "protocol.http = { port = 443, tls = 'implicit' }\n"
WITH_HTTP = changed(("protocol.imap =", f"{HTTP_ENDPOINT}protocol.imap ="))


def listener(protocol: str, tls: str = "implicit", more: str = "", port: int = 10000) -> str:
    """One more listener, named `more`."""
    return (
        f"[listener.more]\nprotocol = '{protocol}'\nbind = ['127.0.0.1:{port}']\n"
        f"tls = '{tls}'\n{more}\n"
    )


def destination(endpoints: str, more: str = "", host: str = "new.example.com") -> str:
    """One more destination, named `new`."""
    return f"[destination.new]\nhost = '{host}'\n{more}\n{endpoints}\n"


def endpoint(protocol: str, tls: str = "implicit") -> str:
    """A line of a destination's table."""
    return f"protocol.{protocol} = {{ port = 1, tls = '{tls}' }}\n"


def route(rest: str) -> str:
    """A route for every path."""
    return f"[[http.route]]\nmatch = '**'\n{rest}\n"


EXTRACT = "extract = { from = 'authorization' }"


class ListenerTests(ConfigTestCase):
    """Rules about listeners."""

    def test_minimalFileIsSound(self) -> None:
        """What the other tests change is right to begin with."""
        self.assertEqual(list(self.load(MINIMAL).listener), ["imaps"])
        self.assertEqual(list(self.load(WITH_HTTP).listener), ["imaps"])

    def test_thereMustBeOne(self) -> None:
        """A proxy that listens nowhere is a mistake."""
        text = MINIMAL.replace(MINIMAL[MINIMAL.index("[listener") : MINIMAL.index("[dest")], "")
        self.assertProblem(text, "listener: there is none")

    def test_emptyBindIsRefused(self) -> None:
        """A listener needs an address."""
        self.assertProblem(changed(('["127.0.0.1:993"]', "[]")), "listener.imaps.bind: is empty")

    def test_proxyHeadersNeedTrustedNetworks(self) -> None:
        """With nobody to believe, the header would be ignored or everybody refused."""
        for mode in ("optional", "required"):
            text = changed(extra=listener("imap", more=f"proxy_protocol = '{mode}'"))
            self.assertProblem(text, "listener.more.proxy_trusted: ")
        more = "proxy_protocol = 'required'\nproxy_trusted = ['192.0.2.0/24']"
        self.load(changed(extra=listener("imap", more=more)))

    def test_badNetworkIsRefused(self) -> None:
        """A CIDR that is none."""
        more = "proxy_trusted = ['192.0.2.0/240']"
        self.assertProblem(
            changed(extra=listener("imap", more=more)), "listener.more.proxy_trusted: "
        )

    def test_passThroughCannotStartTLS(self) -> None:
        """Nobody reads the commands of a pass-through session."""
        for protocol in ("smtp", "lmtp"):
            text = changed(
                ("[routing]", "[routing]\nsmtp_passthrough_destination = 'new'"),
                extra=listener(protocol, "starttls")
                + destination(endpoint("smtp", "plain") + endpoint("lmtp", "plain")),
            )
            self.assertProblem(text, "listener.more.tls: starttls cannot be used with " + protocol)

    def test_httpCannotStartTLS(self) -> None:
        """HTTP has no such command."""
        extra = listener("http", "starttls") + route("destination = 'old'")
        self.assertProblem(changed(base=WITH_HTTP, extra=extra), "listener.more.tls: starttls")


class AddressTests(ConfigTestCase):
    """Two sockets on one address."""

    def test_sameAddressTwice(self) -> None:
        """In two listeners."""
        line = self.assertProblem(changed(extra=listener("imap", port=993)), "listener.more.bind: ")
        self.assertIn("is taken by listener.imaps.bind", line)

    def test_sameAddressInOneListener(self) -> None:
        """In one list."""
        text = changed(('["127.0.0.1:993"]', '["127.0.0.1:993", "tcp:993"]'))
        self.assertProblem(text, "listener.imaps.bind: ")

    def test_wildcardCoversOneAddress(self) -> None:
        """A wildcard has the port on every address."""
        text = changed(('"127.0.0.1:993"', '"0.0.0.0:10000"'), extra=listener("imap"))
        self.assertProblem(text, "listener.more.bind: ")

    def test_managementNeedsItsOwn(self) -> None:
        """The management API's address counts too."""
        extra = f"[admin]\nbind = '0.0.0.0:993'\nbearer_token = '{TOKEN}'\n"
        self.assertProblem(changed(extra=extra), "admin.bind: ")

    def test_bothFamiliesGoTogether(self) -> None:
        """An IPv6 wildcard takes no IPv4 connections."""
        self.load(changed(('["127.0.0.1:993"]', '["0.0.0.0:993", "[::]:993"]')))


class DestinationTests(ConfigTestCase):
    """Rules about destinations."""

    def test_credentialsNeedTLS(self) -> None:
        """Each protocol that carries them, unless the destination says otherwise."""
        for protocol in ("imap", "pop3", "managesieve", "submission", "http"):
            extra = destination(endpoint(protocol, "plain"))
            key = f"destination.new.protocol.{protocol}.tls: plain"
            self.assertProblem(changed(extra=extra), key)
            self.load(
                changed(
                    extra=destination(endpoint(protocol, "plain"), "allow_plaintext_auth = true")
                )
            )

    def test_passThroughMayBePlain(self) -> None:
        """SMTP and LMTP carry no credentials."""
        endpoints = endpoint("smtp", "plain") + endpoint("lmtp", "plain")
        self.load(changed(extra=destination(endpoints)))

    def test_addressNeedsAServerName(self) -> None:
        """An IP address cannot be verified against a certificate."""
        for mode in ("implicit", "starttls"):
            extra = destination(endpoint("imap", mode), host="2001:db8::1")
            self.assertProblem(changed(extra=extra), "destination.new.tls_server_name: missing")
        extra = destination(endpoint("imap"), "tls_server_name = 'new'", "192.0.2.1")
        self.load(changed(extra=extra))

    def test_addressWithoutTLSNeedsNone(self) -> None:
        """Nothing is verified there."""
        self.load(changed(extra=destination(endpoint("smtp", "plain"), host="192.0.2.1")))

    def test_httpEndpointCannotStartTLS(self) -> None:
        """HTTP has no such command."""
        extra = destination(endpoint("http", "starttls"))
        self.assertProblem(changed(extra=extra), "destination.new.protocol.http.tls: starttls")

    def test_httpEndpointHasNoXCLIENT(self) -> None:
        """HTTP has no such command; a word for the whole destination is for its other protocols."""
        form = "protocol.http = { port = 1, tls = 'implicit', forwarding = '%s' }\n"
        line = self.assertProblem(
            changed(extra=destination(form % "xclient")),
            "destination.new.protocol.http.forwarding: xclient cannot be used with http",
        )
        self.assertIn("proxy or none", line)
        for sound in (form % "proxy", form % "none", endpoint("http")):
            self.load(changed(extra=destination(sound, "forwarding = 'xclient'")))

    def test_clientCertificateNeedsItsKey(self) -> None:
        """Both or neither."""
        for given, missing in (("cert", "key"), ("key", "cert")):
            extra = destination(endpoint("imap"), f"tls_client_{given} = 'main.{given}'")
            self.assertProblem(
                changed(extra=extra), f"destination.new.tls_client_{missing}: missing"
            )

    def test_badPinIsRefused(self) -> None:
        """A fingerprint of another length or alphabet."""
        extra = destination(endpoint("imap"), "tls_pinned_cert_sha256 = 'abc'")
        self.assertProblem(changed(extra=extra), "destination.new.tls_pinned_cert_sha256: ")


class RoutingTests(ConfigTestCase):
    """Rules about where sessions go."""

    def test_undeclaredDefault(self) -> None:
        """The declared ones are listed."""
        text = changed(('default_destination = "old"', 'default_destination = "odl"'))
        line = self.assertProblem(text, "routing.default_destination: ")
        self.assertIn('"odl" is not declared; declared are: old', line)

    def test_defaultServesEveryInteractiveListener(self) -> None:
        """Accounts without a mapping go there."""
        self.write("accounts", b"")
        for protocol in ("pop3", "managesieve", "submission"):
            line = self.assertProblem(changed(extra=listener(protocol)), "listener.more.protocol: ")
            self.assertIn(f"add [destination.old.protocol.{protocol}]", line)

    def test_passThroughDestinationIsNeeded(self) -> None:
        """By an smtp or an lmtp listener."""
        for protocol in ("smtp", "lmtp"):
            self.assertProblem(
                changed(extra=listener(protocol)),
                "routing.smtp_passthrough_destination: missing",
            )

    def test_undeclaredPassThroughDestination(self) -> None:
        """Even if no listener uses it."""
        text = changed(("[routing]", "[routing]\nsmtp_passthrough_destination = 'odl'"))
        self.assertProblem(text, "routing.smtp_passthrough_destination: ")

    def test_passThroughDestinationSpeaksWhatIsServed(self) -> None:
        """smtp always, lmtp if an lmtp listener exists."""
        change = ("[routing]", "[routing]\nsmtp_passthrough_destination = 'new'")
        smtp, lmtp = endpoint("smtp", "plain"), endpoint("lmtp", "plain")
        key = 'routing.smtp_passthrough_destination: "new" does not declare '
        for served, endpoints, missing in (
            ("smtp", lmtp, "smtp"),
            ("lmtp", smtp, "lmtp"),
            ("lmtp", lmtp, "smtp"),
        ):
            text = changed(change, extra=listener(served) + destination(endpoints))
            self.assertProblem(text, key + missing)
        self.load(changed(change, extra=listener("smtp") + destination(smtp)))
        self.load(changed(change, extra=listener("lmtp") + destination(smtp + lmtp)))

    def test_emptySeparatorIsRefused(self) -> None:
        """It would cut every name to nothing."""
        text = changed(("[routing]", '[routing]\nmaster_user_separators = ["*", ""]'))
        self.assertProblem(text, "routing.master_user_separators: a separator cannot be empty")


class RouteTests(ConfigTestCase):
    """Rules about HTTP routes."""

    def test_undeclaredDestination(self) -> None:
        """Of a pinned route; its place is told."""
        extra = route("destination = 'old'") + route("destination = 'odl'")
        self.assertProblem(changed(extra=extra), "http.route #2.destination: ")

    def test_undeclaredFallback(self) -> None:
        """Any but "default", which is the default destination."""
        self.assertProblem(
            changed(extra=route(f"{EXTRACT}\nfallback = 'odl'")), "http.route #1.fallback: "
        )
        self.load(changed(extra=route(f"{EXTRACT}\nfallback = 'default'")))

    def test_targetsSpeakHTTP(self) -> None:
        """If an http listener leads requests there."""
        extra = listener("http") + destination(endpoint("imap"))
        for rest, key in (("destination = 'new'", "destination"), ("fallback = 'new'", "fallback")):
            form = rest if key == "destination" else f"{EXTRACT}\n{rest}"
            line = self.assertProblem(
                changed(base=WITH_HTTP, extra=extra + route(form)), f"http.route #1.{key}: "
            )
            self.assertIn("does not declare http", line)

    def test_listenerNeedsARoute(self) -> None:
        """An http listener without any would answer 404 to everything."""
        self.assertProblem(changed(base=WITH_HTTP, extra=listener("http")), "http.route: there is")

    def test_extractNeedsHTTPOnTheDefault(self) -> None:
        """Requests without a mapping go there."""
        self.write("accounts", b"")
        self.assertProblem(
            changed(extra=listener("http") + route(EXTRACT)), "http.route: extract needs http"
        )
        self.load(changed(base=WITH_HTTP, extra=listener("http") + route(EXTRACT)))

    def test_aMistakeHidesNoOther(self) -> None:
        """Neither in its own route nor in others; nor does it make the route go away."""
        self.write("accounts", b"")
        routes = (
            "match = '?'\ndestination = 'odl'\nfallback = 'default'\n",
            "match = '/a'\nextract = { from = 'body', regex = '(a' }\nfallback = 'odl'\n",
            f"match = '?'\ndestination = 'old'\n{EXTRACT}\n",
            "match = '/a'\ndestinaton = 'old'\n",
            "match = '/a'\n",
        )
        extra = listener("http") + "".join(f"[[http.route]]\n{each}" for each in routes)
        found = [each.partition(": ")[0] for each in self.problems(changed(extra=extra))]
        self.assertEqual(
            sorted(found),
            [
                *("http.route", "http.route #1", "http.route #1.destination"),
                *("http.route #1.match", "http.route #2.extract.regex", "http.route #2.fallback"),
                *("http.route #3", "http.route #3.destination", "http.route #3.match"),
                *("http.route #4.destinaton", "http.route #5"),
            ],
        )

    def test_aBrokenTableIsNoMissingRoute(self) -> None:
        """What stands in the place of routes is complained of, not that there are none."""
        extra = listener("http") + "[http.route]\nmatch = '/a'\n"
        line = self.assertProblem(changed(base=WITH_HTTP, extra=extra), "http.route: ")
        self.assertIn("not a list", line)

    def test_pinnedRoutesNeedNoHTTPOnTheDefault(self) -> None:
        """If no request goes there."""
        self.write("accounts", b"")
        extra = listener("http") + destination(endpoint("http")) + route("destination = 'new'")
        self.load(changed(extra=extra))


class MappingTests(ConfigTestCase):
    """Rules about the store."""

    def test_sourceNeedsItsSection(self) -> None:
        """Each of the three."""
        for source in ("redis", "sql"):
            text = changed(('source = "file"', f'source = "{source}"'))
            self.assertProblem(text, f"mapping.{source}: missing; ")
        self.assertProblem(changed(('file.path = "accounts"', "")), "mapping.file: missing; ")

    def sql(self, url: str, **statements: str) -> str:
        """A file whose store is a database."""
        keys = "".join(f"sql.{key} = '''{value}'''\n" for key, value in statements.items())
        return changed(('source = "file"', f'source = "sql"\nsql.url = "{url}"\n{keys}'))

    def test_statementsTakeTheirParameters(self) -> None:
        """In the database's own notation; one in a string is none."""
        for url, query in (
            ("postgresql://h/d", "SELECT d FROM r WHERE i = ?"),
            ("postgres://h/d", "SELECT d FROM r WHERE i = $1 OR i = $2"),
            ("mysql://h/d", "SELECT d FROM r WHERE i = $1"),
            ("sqlite:///r.db", "SELECT '?' FROM r"),
        ):
            self.assertProblem(self.sql(url, query=query), "mapping.sql.query: must have 1 bind")
        right = "SELECT d FROM r WHERE i = {} AND x <> '?$2'"
        self.load(self.sql("postgres://h/d", query=right.format("$1")))
        self.load(self.sql("sqlite:///r.db", query=right.format("?")))

    def test_aMarkInACommentIsNoParameter(self) -> None:
        """Nor one in a string of MySQL's, whose backslash lets it go on."""
        for url, query in (
            ("postgres://h/d", "SELECT $1 /* not $2\n */"),
            ("postgres://h/d", "SELECT d # $1"),
            ("sqlite:///r.db", "SELECT ? /* ' */ -- why?"),
            ("sqlite:///r.db", r"SELECT '\', ?, '?, ?'"),
            ("mysql://h/d", "SELECT ? # why?\n -- why?\n--\n"),
            ("mysql://h/d", r"""SELECT 'it\'s?', "\"?" FROM r WHERE i = ? /* ? */"""),
            ("mysql://h/d", "SELECT 5--? FROM r"),
            ("mysql://h/d", "SELECT /*! STRAIGHT_JOIN ? */ d"),
        ):
            self.load(self.sql(url, query=query))
        for url, query in (
            ("mysql://h/d", "SELECT ? /*!, ? */"),
            ("postgres://h/d", "SELECT /* $1 */ 1"),
        ):
            self.assertProblem(self.sql(url, query=query), "mapping.sql.query: must have 1 bind")

    def test_writeStatementsToo(self) -> None:
        """Two for writing, one for deleting; a PostgreSQL one may be used twice."""
        one, two = "SELECT $1", "INSERT INTO r VALUES ($1, $2) ON CONFLICT DO UPDATE SET d = $2"
        text = self.sql("postgres://h/d", query=one, upsert_query=one, delete_query=two)
        self.assertEqual(
            [line.split(";")[0] for line in self.problems(text)],
            [
                "mapping.sql.upsert_query: must have 2 bind parameters, written $1 and $2",
                "mapping.sql.delete_query: must have 1 bind parameter, written $1",
            ],
        )
        self.load(self.sql("postgres://h/d", query=one, upsert_query=two, delete_query=one))


class TLSTests(ConfigTestCase):
    """Rules about TLS towards clients."""

    def test_unknownSuite(self) -> None:
        """A name that is no standard one."""
        self.assertProblem(
            changed(extra="[tls.protocols]\ndisable_cipher_suites = ['AES128-SHA']\n"),
            "tls.protocols.disable_cipher_suites: ",
        )

    def test_noSuiteLeft(self) -> None:
        """Removing every suite of the versions spoken."""
        names = [
            "TLS_AES_256_GCM_SHA384",
            "TLS_CHACHA20_POLY1305_SHA256",
            "TLS_AES_128_GCM_SHA256",
        ]
        extra = f"[tls.protocols]\ndisable_cipher_suites = {names}\n"
        self.load(changed(extra=extra))
        self.assertProblem(
            changed(extra=f'{extra}min_version = "1.3"\n'),
            "tls.protocols.disable_cipher_suites: no suite",
        )

    def test_unknownGroup(self) -> None:
        """A key exchange that OpenSSL has not."""
        self.assertProblem(
            changed(extra="[tls.protocols]\ngroups = ['X25518']\n"), "tls.protocols.groups: "
        )

    def test_twoDefaultCertificates(self) -> None:
        """Only one can be shown."""
        more = "[tls.certificate.b]\ncert = 'main.pem'\nkey = 'main.key'\ndefault = true\n"
        text = changed(('key = "main.key"', 'key = "main.key"\ndefault = true'), extra=more)
        line = self.assertProblem(text, "tls.certificate.b.default: ")
        self.assertIn('"main" is the default already', line)
