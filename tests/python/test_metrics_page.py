"""Every metric of the gateway is on the metrics page, and the page has no other but those left out."""

import re
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
SOURCES = [ROOT / "gateway/src/metrics.rs", *sorted((ROOT / "gateway/src/metrics").glob("*.rs"))]
PAGE = ROOT / "docs/metrics.md"

NAME = re.compile(r"(?:sluice|nv|request)_[a-z_]+[a-z]")


def of_code():
    """The texts in the code before its tests that are names of metrics."""
    found = set()
    for file in SOURCES:
        code = file.read_text().split("#[cfg(test)]")[0]
        found.update(name for name in re.findall(r'"([^"]+)"', code) if NAME.fullmatch(name))
    return found


def of_page():
    """The names in the first column of the tables that do not say what is left out."""
    text = re.sub(r"\nLeft out:\n.*?(?=\n## )", "\n", PAGE.read_text(), flags=re.DOTALL)
    rows = [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


class MetricsPage(unittest.TestCase):
    def test_it_has_every_name_and_no_other(self):
        code = of_code()
        self.assertGreater(len(code), 30)
        for prefix in ("sluice_", "nv_", "request_"):
            self.assertTrue(any(name.startswith(prefix) for name in code), prefix)
        self.assertEqual(sorted(of_page()), sorted(code))


if __name__ == "__main__":
    unittest.main()
