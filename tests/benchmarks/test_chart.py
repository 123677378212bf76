"""The bar chart."""

from itertools import pairwise
from xml.etree import ElementTree

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.chart import Group, draw

SVG = "{http://www.w3.org/2000/svg}"


class DrawTests(SynchronousTestCase):
    """Drawing."""

    def draw(self, *groups: Group) -> ElementTree.Element:
        """Draw, and read it again."""
        return ElementTree.fromstring(draw("CPU time <per unit> & more", groups))

    def test_isSoundXML(self) -> None:
        """Whatever the titles are."""
        image = self.draw(Group("a < b & c", "s/GB", {"<proxy>": 1.0}))
        self.assertEqual(image.tag, f"{SVG}svg")
        texts = [each.text for each in image.iter(f"{SVG}text")]
        self.assertEqual(texts, ["CPU time <per unit> & more", "a < b & c", "s/GB", "1 <proxy>"])

    def test_theLongestBarOfAGroupFillsTheWidth(self) -> None:
        """And the others are in proportion, whatever other groups hold."""
        image = self.draw(Group("A", "s", {"x": 2.0, "y": 4.0}), Group("B", "s", {"x": 100.0}))
        x, y, alone = [float(bar.get("width", "")) for bar in bars(image)]
        self.assertEqual(x, y / 2)
        self.assertEqual(y, alone)

    def test_aNameKeepsItsColour(self) -> None:
        """In every group, though another may be missing there."""
        image = self.draw(Group("A", "s", {"x": 2.0, "y": 4.0}), Group("B", "s", {"y": 1.0}))
        x, y, again = [bar.get("fill") for bar in bars(image)]
        self.assertNotEqual(x, y)
        self.assertEqual(y, again)

    def test_nothingOverlaps(self) -> None:
        """Bars begin beneath each other and end above the lower edge."""
        image = self.draw(*(Group(name, "s", {"x": 1.0, "y": 0.0}) for name in "ABC"))
        tops = [int(bar.get("y", "")) for bar in bars(image)]
        height = int(bars(image)[0].get("height", ""))
        self.assertTrue(all(b - a >= height for a, b in pairwise(tops)))
        self.assertLessEqual(tops[-1] + height, int(image.get("height", "")))


def bars(image: ElementTree.Element) -> list[ElementTree.Element]:
    """All rectangles but the ground."""
    return list(image.iter(f"{SVG}rect"))[1:]
