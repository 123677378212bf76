"""Names of cipher suites, held against the OpenSSL that is here."""

import ssl

from twisted.trial.unittest import SynchronousTestCase

from mailproxy.config.ciphers import (
    TLS12_OFFERED,
    TLS13_OFFERED,
    checkGroup,
    knownSuites,
    openSSLName,
    remaining,
)

CODES = {
    "TLS_AES_128_GCM_SHA256": 0x1301,
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": 0xC02B,
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": 0xC030,
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA384": 0xC028,
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": 0xC013,
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": 0xCCA9,
    "TLS_DHE_RSA_WITH_AES_256_CBC_SHA256": 0x006B,
    "TLS_DHE_RSA_WITH_AES_128_CCM_8": 0xC0A2,
    "TLS_ECDHE_RSA_WITH_ARIA_128_GCM_SHA256": 0xC060,
    "TLS_RSA_WITH_AES_128_CBC_SHA": 0x002F,
    "TLS_RSA_WITH_CAMELLIA_256_CBC_SHA256": 0x00C0,
}
"""Some of the registry's code points, of each family of names."""


def offeredByOpenSSL() -> dict[str, int]:
    """OpenSSL's names of all suites with a certificate, and their code points."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:!aNULL:!eNULL:!PSK:!SRP:!aDSS:@SECLEVEL=0")
    return {suite["name"]: suite["id"] & 0xFFFF for suite in context.get_ciphers()}


class NameTests(SynchronousTestCase):
    """Standard names and OpenSSL's own."""

    def test_everyOfferedSuiteHasAStandardName(self) -> None:
        """Whatever OpenSSL can offer with a certificate can be disabled by its standard name.

        Left out are suites older than AES that some builds still have.
        """
        known = {openSSLName(name) for name in knownSuites()}
        old = ("SEED", "IDEA", "3DES", "DES-CBC3", "RC4")
        modern = {name for name in offeredByOpenSSL() if not any(one in name for one in old)}
        self.assertEqual(modern - known, set())

    def test_namesMeanTheSameSuite(self) -> None:
        """A name is translated to the suite with the registered code point."""
        codes = offeredByOpenSSL()
        self.assertEqual(
            {name: codes[openSSLName(name)] for name in CODES if openSSLName(name) in codes},
            {name: code for name, code in CODES.items() if openSSLName(name) in codes},
        )
        self.assertIn("ECDHE-RSA-AES256-GCM-SHA384", codes)

    def test_translationIsUnambiguous(self) -> None:
        """No two standard names are one suite."""
        names = knownSuites()
        self.assertEqual(len({openSSLName(name) for name in names}), len(names))

    def test_unknownNameIsRefusedWithTheNearest(self) -> None:
        """OpenSSL's own spelling and typing errors are answered with what was probably meant."""
        error = self.assertRaises(ValueError, openSSLName, "TLS13_AES_128_GCM_SHA256")
        self.assertIn("did you mean TLS_AES_128_GCM_SHA256?", str(error))
        self.assertRaises(ValueError, openSSLName, "ECDHE-RSA-AES128-SHA")
        self.assertRaises(ValueError, openSSLName, "")

    def test_groups(self) -> None:
        """Key exchange groups go by the names that OpenSSL takes, in any case."""
        self.assertEqual(checkGroup("x25519"), "x25519")
        error = self.assertRaises(ValueError, checkGroup, "X25518")
        self.assertIn("did you mean X25519?", str(error))


class RemainingTests(SynchronousTestCase):
    """What is left after `disable_cipher_suites`."""

    def test_everythingOfferedByDefault(self) -> None:
        """Without removals, the offer has forward secrecy throughout."""
        suites = remaining([])
        self.assertEqual(suites.tls13, TLS13_OFFERED)
        self.assertEqual(len(suites.tls12), len(TLS12_OFFERED))
        self.assertTrue(all(name.startswith(("ECDHE-", "DHE-")) for name in suites.tls12))

    def test_openSSLTakesWhatIsLeft(self) -> None:
        """The names are accepted, in this order, by OpenSSL."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_ciphers(":".join(remaining([]).tls12))
        taken = [one["name"] for one in context.get_ciphers() if one["protocol"] != "TLSv1.3"]
        self.assertEqual(tuple(taken), remaining([]).tls12)

    def test_removedSuitesAreGoneFromBothVersions(self) -> None:
        """TLS 1.2 and 1.3 suites are removed alike."""
        suites = remaining(["TLS_AES_128_GCM_SHA256", "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA"])
        self.assertNotIn("TLS_AES_128_GCM_SHA256", suites.tls13)
        self.assertNotIn("ECDHE-RSA-AES128-SHA", suites.tls12)
        self.assertEqual(len(suites.tls13), len(TLS13_OFFERED) - 1)
        self.assertEqual(len(suites.tls12), len(TLS12_OFFERED) - 1)

    def test_oneVersionMayBeEmptied(self) -> None:
        """Without any TLS 1.3 suite, 1.2 is still spoken, and the other way round."""
        self.assertEqual(remaining(TLS13_OFFERED).tls13, ())
        self.assertEqual(remaining(TLS12_OFFERED).tls12, ())

    def test_newerMinimumOffersNoOlderSuites(self) -> None:
        """With TLS 1.3 as the oldest version no 1.2 suite is offered."""
        self.assertEqual(remaining([], "1.3").tls12, ())

    def test_removingEverythingIsRefused(self) -> None:
        """A server without any suite could speak with nobody."""
        self.assertRaises(ValueError, remaining, [*TLS12_OFFERED, *TLS13_OFFERED])
        self.assertRaises(ValueError, remaining, TLS13_OFFERED, "1.3")
