"""What runs the examples of docs/models.md: how it reads the page, and when an output is another."""

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "frameworks"))
import run_page


class Page(unittest.TestCase):
    def test_every_section_trains_asks_and_compares(self):
        shared, *examples = run_page.sections().items()
        self.assertIn("sluice-gateway", shared[1][0].text)
        for title, blocks in examples:
            code = "".join(block.text for block in blocks if block.language == "python")
            self.assertIn("publish(", code, title)
            self.assertIn("ask(", code, title)
            self.assertTrue(any(block.printed for block in blocks), title)
        for framework in ("scikit-learn", "LightGBM", "XGBoost", "PyTorch"):
            blocks = dict(examples)[framework]
            shell = "".join(block.text for block in blocks if block.language == "sh")
            self.assertIn("/v1/models/", shell, framework)
            self.assertIn("/v2/models/", shell, framework)
            self.assertTrue(any("numpy.testing." in block.text for block in blocks), framework)

    def test_a_block_that_would_not_run_is_refused(self):
        for text, says in [
            ("## A\n```yaml\na: 1\n```\n", "not 'yaml'"),
            ("## A\n```json\n1\n```\n", "without the block that printed it"),
            ("## A\n```sh\necho\n```\nand\n\n```text\n1\n```\n", "without the block that printed it"),
            ("## A\n```sh\necho\n```\n```text\n1\n```\n```text\n1\n```\n", "without the block that printed it"),
        ]:
            with self.assertRaises(SystemExit) as refused:
                run_page.sections(text)
            self.assertIn(says, str(refused.exception))


class Outputs(unittest.TestCase):
    def test_what_agrees(self):
        for expected, found, agrees in [
            ("", "", True),
            ("", "1\n", False),
            ('{"a":[1.0,2]}\n', '{"a": [1.0,\n  2]}', True),
            ('{"a":[0.114188865]}', '{"a":[0.11418882]}', True),
            ('{"a":[0.114188865]}', '{"a":[0.1152]}', False),
            ("[1.23e-04 1.14]", "[0.000123 1.14]", True),
            ("[1.14 2.5]", "[1.14]", False),
            ("[1.14]", "[1.14 2.5]", False),
            ('{"version":1}', '{"version":2}', False),
            ("[14.0]", "[-14.0]", False),
            ("[1. 1.]", "[1.0 0.9999999]", True),
            ("apart", "together", False),
            ("[null]", "[1.0]", False),
        ]:
            self.assertEqual(run_page.agree(expected, found), agrees, (expected, found))


if __name__ == "__main__":
    unittest.main()
