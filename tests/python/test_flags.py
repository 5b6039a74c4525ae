"""Every flag of the gateway is in some document, and the documents name no flag that is none."""

import re
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
SOURCES = ROOT / "gateway/src"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMING = ROOT / "docs/coming-from-triton.md"

# An argument of clap's with a long form, and the field that it is named after.
FLAG = re.compile(r"#\[arg\(\s*long\b.*?\)\]\s*(?:#\[[^\]]*\]\s*)*pub (\w+):", re.DOTALL)
KEY = re.compile(r"--([a-z][a-z0-9-]*)")


def flags():
    """What `sluice-gateway --help` lists, but for --help and --version, which clap adds."""
    fields = {name for file in SOURCES.rglob("*.rs") for name in FLAG.findall(file.read_text())}
    return {field.replace("_", "-") for field in fields}


class Flags(unittest.TestCase):
    def setUp(self):
        self.flags = flags()

    def test_they_are_found(self):
        self.assertGreater(len(self.flags), 40)
        for flag in ("model-repository", "metric-names", "restrict", "trace-level", "log", "check"):
            self.assertIn(flag, self.flags)

    def test_every_flag_is_in_a_document(self):
        named = {flag for page in PAGES for flag in KEY.findall(page.read_text())}
        self.assertEqual(sorted(self.flags - named), [])

    def test_flags_of_ours_that_stand_for_tritons_are_there(self):
        page = COMING.read_text()
        rows = [line.split(" | ", 1)[1] for line in page.splitlines() if line.startswith("| `--")]
        self.assertGreater(len(rows), 20)
        commands = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
        self.assertEqual(len(commands), 2)
        named = {flag for text in rows + commands for flag in KEY.findall(text)}
        self.assertGreater(len(named), 20)
        self.assertEqual(sorted(named - self.flags), [])


if __name__ == "__main__":
    unittest.main()
