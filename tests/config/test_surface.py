"""Capabilities, tokens, HTTP rules and the management API by themselves."""

from twisted.trial.unittest import SynchronousTestCase

from mailproxy.config.surface import HTTP, Admin, Capabilities, ExtractFrom, OAuth
from mailproxy.errors import ConfigError
from tests.config.support import TOKEN, ConfigTestCase, changed

MECHANISMS = ("PLAIN", "LOGIN", "OAUTHBEARER", "XOAUTH2")


class DefaultTests(SynchronousTestCase):
    """What is promised when nothing is configured."""

    def test_capabilities(self) -> None:
        """Only what nearly every backend keeps."""
        capabilities = Capabilities()
        self.assertEqual(
            capabilities.imap.advertise, ("IMAP4rev1", "SASL-IR", "LITERAL+", "ID", "ENABLE")
        )
        self.assertEqual(
            capabilities.submission.ehlo, ("PIPELINING", "SIZE", "8BITMIME", "ENHANCEDSTATUSCODES")
        )

    def test_loginsNeedTLSAndEveryMechanismIsOffered(self) -> None:
        """In each protocol."""
        capabilities = Capabilities()
        for dialogue in (
            capabilities.imap,
            capabilities.pop3,
            capabilities.submission,
            capabilities.managesieve,
        ):
            self.assertEqual(dialogue.sasl, MECHANISMS)
            self.assertFalse(dialogue.allow_plain_auth_without_tls)

    def test_httpAndTokens(self) -> None:
        """The limits of HTTP and the first claim of a token."""
        http = HTTP()
        self.assertEqual((http.body_extract_cap, http.max_head_size), (65536, 65536))
        self.assertEqual((http.relay_idle, http.keepalive_timeout), (60, 75))
        self.assertEqual(http.max_keepalive_requests, 1000)
        self.assertEqual(OAuth().jwt_username_claim, "email")


class AdvertisedTests(ConfigTestCase):
    """What an operator may promise on top."""

    def test_whatIsSaidByItselfIsNotWritten(self) -> None:
        """An `AUTH=` in the clear would offer what is refused, LOGINDISABLED refuse what is not."""
        for word in ("STARTTLS", "starttls", "LOGINDISABLED", "AUTH=PLAIN"):
            text = changed(extra=f'[capabilities.imap]\nadvertise = ["IMAP4rev1", "{word}"]')
            self.assertIn(word, self.assertProblem(text, "capabilities.imap.advertise: "))

    def test_thatHoldsForSubmissionToo(self) -> None:
        """AUTH and XCLIENT would be offered to everybody, however the lines are written."""
        lines = "STARTTLS", "starttls", "AUTH PLAIN", "auth=LOGIN", " AUTH PLAIN", "XCLIENT ADDR"
        for line in lines:
            text = changed(extra=f'[capabilities.submission]\nehlo = ["SIZE 1000", "{line}"]')
            self.assertIn(line, self.assertProblem(text, "capabilities.submission.ehlo: "))

    def test_aWordIsOneWord(self) -> None:
        """A space would make two of it."""
        text = changed(extra='[capabilities.imap]\nadvertise = ["X Y"]')
        self.assertProblem(text, "capabilities.imap.advertise")


class TogetherTests(ConfigTestCase):
    """A bad value does not hide what else is wrong with its table."""

    def test_badValueAndUndeclaredDefault(self) -> None:
        """One inside the table, one between tables."""
        text = changed(
            (
                'default_destination = "old"',
                'default_destination = "odl"\nmaster_user_separators = [""]',
            )
        )
        problems = self.problems(text)
        self.assertTrue(any("master_user_separators" in each for each in problems), problems)
        self.assertTrue(any("odl" in each for each in problems), problems)


class RouteTests(ConfigTestCase):
    """What an `[[http.route]]` may say."""

    def route(self, rest: str, match: str = "/a") -> str:
        """A file with this one route."""
        return changed(extra=f"[[http.route]]\nmatch = {match!r}\n{rest}\n")

    def test_everyFormOfExtract(self) -> None:
        """Each of the four places, with its companion."""
        for form, kind in {
            '{ from = "authorization" }': ExtractFrom.AUTHORIZATION,
            '{ from = "query", param = "user" }': ExtractFrom.QUERY,
            '{ from = "header", header = "X-User" }': ExtractFrom.HEADER,
            '{ from = "body", regex = "<u>(.*?)</u>" }': ExtractFrom.BODY,
        }.items():
            (route,) = self.load(self.route(f"extract = {form}")).http.route
            assert route.extract is not None
            self.assertEqual(route.extract.from_, kind)

    def test_companionIsNeeded(self) -> None:
        """A query without a parameter names nobody."""
        for form in ('"query"', '"header"', '"body"'):
            self.assertProblem(
                self.route(f"extract = {{ from = {form} }}"), "http.route #1.extract: from = "
            )

    def test_companionOfAnotherFormIsRefused(self) -> None:
        """Exactly one form at a time."""
        line = self.assertProblem(
            self.route('extract = { from = "query", param = "u", header = "X-User" }'),
            "http.route #1.extract: ",
        )
        self.assertIn("takes no header", line)

    def test_destinationOrExtract(self) -> None:
        """One of both, never both, never none."""
        for rest in ("", 'destination = "old"\nextract = { from = "authorization" }'):
            line = self.assertProblem(self.route(rest), "http.route #1: ")
            self.assertIn("either destination or extract", line)

    def test_fallbackWithoutExtractIsRefused(self) -> None:
        """It would never be used."""
        self.assertProblem(
            self.route('destination = "old"\nfallback = "default"'), "http.route #1: fallback"
        )

    def test_globsAreChecked(self) -> None:
        """A bad one is refused, a sound one kept."""
        self.assertProblem(self.route('destination = "old"', "a"), "http.route #1.match: ")
        config = self.load(self.route('destination = "old"', "/a b/**"))
        self.assertEqual(config.http.route[0].match, "/a b/**")

    def test_regexIsChecked(self) -> None:
        """What does not compile is refused with the reason."""
        line = self.assertProblem(
            self.route("extract = { from = 'body', regex = '(a' }"), "http.route #1.extract.regex: "
        )
        self.assertIn("is not a regular expression", line)

    def test_badHeaderNameIsRefused(self) -> None:
        """A header's name is a token."""
        self.assertProblem(
            self.route("extract = { from = 'header', header = 'X User' }"),
            "http.route #1.extract.header: ",
        )


class AdminTests(ConfigTestCase):
    """The `[admin]` table by itself."""

    def test_defaults(self) -> None:
        """Five wrong tokens, five minutes, implicit TLS."""
        extra = f'[admin]\nbind = "127.0.0.1:8443"\nbearer_token = "{TOKEN}"\n'
        admin = self.load(changed(extra=extra)).admin
        assert admin is not None
        self.assertEqual((admin.lockout_threshold, admin.lockout_duration), (5, 300))
        self.assertEqual((admin.tls, admin.min_token_len), ("implicit", 32))

    def test_thereIsNoEmptyToken(self) -> None:
        """A table that did not come through loading gives none, rather than an empty one."""
        admin = Admin.model_validate({"bind": "127.0.0.1:1"})
        self.assertRaises(ConfigError, lambda: admin.token)

    def test_otherTLSIsRefused(self) -> None:
        """The management API is HTTPS only."""
        for mode in ("starttls", "plain"):
            extra = f'[admin]\nbind = "127.0.0.1:1"\nbearer_token = "{TOKEN}"\ntls = "{mode}"\n'
            line = self.assertProblem(changed(extra=extra), "admin.tls: ")
            self.assertIn("must be implicit", line)

    def test_bindIsRequired(self) -> None:
        """There is no default address for it."""
        self.assertProblem(changed(extra=f'[admin]\nbearer_token = "{TOKEN}"\n'), "admin.bind: ")
