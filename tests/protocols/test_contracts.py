"""Every protocol keeps every contract, in its own words and however its bytes are cut."""

from inspect import getmembers, isclass
from itertools import combinations
from types import ModuleType

from twisted.trial.unittest import SynchronousTestCase

from tests.protocols import clientcontract, servercontract
from tests.protocols.backend import ClientCase
from tests.protocols.talk import ServerCase
from tests.support import Segments
from tests.words import ALL

Case = ServerCase | ClientCase

WHOLE_ONLY = ("VolumeContract", "FactoryContract", "InjectionContract")
"""Contracts that do not ask how bytes are cut."""

SOME_ONLY = ("LongTokenContract",)
"""Contracts that do not hold in every protocol."""


def contracts(module: ModuleType) -> dict[str, type]:
    """The contracts that hold in every protocol."""
    return {
        name: each
        for name, each in getmembers(module, isclass)
        if name.endswith("Contract") and name not in SOME_ONLY
    }


def runs(case: "type[Case]") -> "list[type[Case]]":
    """The test cases of one protocol's side, by way of what they have in common."""
    direct: list[type[Case]] = [*case.__subclasses__()]
    return [*direct, *(each for one in direct for each in one.__subclasses__())]


class ContractTests(SynchronousTestCase):
    """A rule that is written once is run for all."""

    def setUp(self) -> None:
        """Find each protocol's two cases, by their words."""
        sides: tuple[type[Case], ...] = (ServerCase, ClientCase)
        cases: list[type[Case]] = [each for side in sides for each in side.__subclasses__()]
        self.cases = {id(case.words): case for case in cases}

    def test_everyContractIsRun(self) -> None:
        """By each protocol, and, most of them, for each way in which bytes are cut."""
        for words in ALL:
            for module, side in ((servercontract, words.server), (clientcontract, words.client)):
                cases = runs(self.cases[id(side)])
                for name, contract in contracts(module).items():
                    found = {each.segments for each in cases if issubclass(each, contract)}
                    wanted = {Segments.WHOLE} if name in WHOLE_ONLY else set(Segments)
                    self.assertEqual(found, wanted, f"{words.protocol}: {name}")

    def test_noTestHidesAnother(self) -> None:
        """Where test cases are put together, each test has its own name."""
        for case in self.cases.values():
            for each in runs(case):
                for one, other in combinations(each.__bases__, 2):
                    names = set(dir(one)) & set(dir(other))
                    hidden = {name for name in names if name.startswith("test_")}
                    self.assertEqual(hidden, set(), each)
