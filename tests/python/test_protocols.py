"""docs/protocols.md: every rule once, and every test that it names is there."""

import ast
import functools
import re
import unittest
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = ROOT / "docs" / "protocols.md"

RULE = re.compile(r"[A-G]\d+(\.\d+)?[a-z]?")
CELL_BORDER = re.compile(r"(?<!\\)\|")
CODE = re.compile(r"`([^`]+)`")
RUST_TEST = re.compile(r"(api|gateway|protocol|allocations)((?:::\w+)+)")
PYTHON_TEST = re.compile(r"([a-z]\w*)\.([A-Z]\w*)\.(\w+)")
RUST_FUNCTION = re.compile(r"((?:#\[[^\]]*\]\s*)+)(?:async )?fn (\w+)\(")
RUST_ATTRIBUTE = re.compile(r"#\[(?:tokio::)?(\w+)")
# The last number of each section. Without them nobody would miss the last rule.
SECTIONS = {
    **{"A": 5, "A1.": 10, "A2.": 9, "A3.": 5},
    **{"B": 7, "B1.": 14, "B5.": 20},
    **{"C": 6, "C2.": 8, "C3.": 7},
    **{"D": 13, "E": 10, "G": 15},
}
# What may stand in the last column where no test does.
NOTHING = "–"


def cells(line):
    return [cell.strip() for cell in CELL_BORDER.split(line)[1:-1]]


def rules(page):
    """The rows of rules: the rule, and all cells."""
    rows = [cells(line) for line in page.splitlines() if line.startswith("|")]
    return [(row[0], row) for row in rows if row and RULE.fullmatch(row[0])]


def names(text):
    """The tests that a text names."""
    return [name for name in CODE.findall(text) if RUST_TEST.fullmatch(name) or PYTHON_TEST.fullmatch(name)]


def rust_files(name):
    """Where a Rust test of this name would be, and what its function is called."""
    crate, *modules, function = name.split("::")
    match crate:
        case "api" if len(modules) == 1:
            return [ROOT / "gateway/tests/api" / f"{modules[0]}.rs"], function
        case "allocations" if not modules:
            return [ROOT / "gateway/tests/allocations/main.rs"], function
        case "gateway" | "protocol" if modules:
            place = ROOT.joinpath(crate, "src", *modules)
            return [place.with_suffix(".rs"), place / "mod.rs", place / "tests.rs", place.with_name(f"{place.name}_tests.rs")], function
    return [], function


def rust_tests(source):
    """The tests in a text, but for those that are not run."""
    functions = [(name, RUST_ATTRIBUTE.findall(attributes)) for attributes, name in RUST_FUNCTION.findall(source)]
    return {name for name, attributes in functions if "test" in attributes and "ignore" not in attributes}


def rust_test_is_there(name):
    files, function = rust_files(name)
    return any(function in rust_tests(file.read_text()) for file in files if file.exists())


@functools.cache
def python_cases(suite):
    """The classes that a suite runs, with their cases."""
    file = ROOT / "tests/python/clients" / f"{suite}.py"
    return cases_in(file.read_text()) if file.exists() else {}


def cases_in(source):
    """The classes of a source with their cases. One that nothing outside of classes names is not run."""
    body = ast.parse(source).body
    classes = [node for node in body if isinstance(node, ast.ClassDef)]
    others = [item for node in body if node not in classes for item in ast.walk(node)]
    used = {item.id for item in others if isinstance(item, ast.Name) and isinstance(item.ctx, ast.Load)}
    functions = lambda node: {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
    return {node.name: functions(node) for node in classes if node.name in used}


def python_test_is_there(name):
    suite, kind, case = name.split(".")
    return f"test_{case}" in python_cases(suite).get(kind, set())


def is_there(name):
    return rust_test_is_there(name) if RUST_TEST.fullmatch(name) else python_test_is_there(name)


class Protocols(unittest.TestCase):
    def setUp(self):
        self.page = PAGE.read_text(encoding="utf-8")
        self.rules = rules(self.page)

    def test_every_test_that_is_named_exists(self):
        named = names(self.page)
        self.assertGreater(len(named), 100)
        self.assertEqual(sorted({name for name in named if not is_there(name)}), [])

    def test_no_rule_is_there_twice(self):
        counted = Counter(rule for rule, _ in self.rules)
        self.assertGreater(len(counted), 100)
        self.assertEqual([rule for rule, times in counted.items() if times > 1], [])

    def test_every_rule_has_a_test_or_a_reason(self):
        for rule, row in self.rules:
            if rule.startswith("G"):
                continue
            with self.subTest(rule):
                says_why = row[-1] == NOTHING and ("differs" in row[-2] or "no test" in row[-2])
                self.assertTrue(names(row[-1]) or says_why, row)

    def test_no_section_is_left_out(self):
        """Numbers run on: a gap is a rule that was forgotten, but for faults that are no protocol's."""
        numbers = {}
        for rule, _ in self.rules:
            letter, first, second = re.match(r"([A-G])(\d+)(?:\.(\d+))?", rule).groups()
            numbers.setdefault(letter, set()).add(int(first))
            if second:
                numbers.setdefault(f"{letter}{first}.", set()).add(int(second))
        numbers.pop("F")
        self.assertEqual(sorted(numbers), sorted(SECTIONS))
        for section, last in SECTIONS.items():
            first = 0 if section == "C" else 1
            self.assertEqual(sorted(numbers[section]), list(range(first, last + 1)), section)

    def test_flags_are_settings(self):
        sources = "".join(file.read_text() for file in (ROOT / "gateway/src").rglob("*.rs"))
        fields = set(re.findall(r"^    pub (\w+): ", sources, re.MULTILINE))
        for flag in sorted(set(re.findall(r"--([a-z][a-z-]+)", self.page))):
            with self.subTest(flag):
                self.assertIn(flag.replace("-", "_"), fields)

    def test_references_to_rules_are_to_rules(self):
        known = {rule for rule, _ in self.rules}
        known |= {rule.rstrip("abcdefghijklmn") for rule in known}
        for rule, row in self.rules:
            for other in re.findall(r"\b[A-G]\d+(?:\.\d+)?[a-z]?\b", " ".join(CODE.sub("", cell) for cell in row[1:])):
                with self.subTest(rule=rule, other=other):
                    self.assertIn(other, known)


class Reading(unittest.TestCase):
    """The check itself: it would notice."""

    def test_what_is_not_there_is_noticed(self):
        for name in (
            "api::http_v2::no_such_test",
            "api::no_such_file::every_datatype_in_json_and_in_binary",
            "gateway::http::v2::split::no_such_test",
            "gateway::http::no_such_module::other_lengths_are_refused",
            "triton.Health.no_such_case",
            "triton.NoSuchClass.live",
            "no_such_suite.Health.live",
        ):
            self.assertEqual(names(f"`{name}`"), [name])
            self.assertFalse(is_there(name), name)

    def test_what_is_not_run_is_noticed(self):
        source = """
        #[tokio::test(flavor = "multi_thread")]
        async fn runs() {}
        #[test]
        #[ignore = "slow"]
        fn is_ignored() {}
        #[ignore]
        #[test]
        fn is_ignored_too() {}
        #[expect(dead_code, reason = "none")]
        fn is_no_test() {}
        """
        self.assertEqual(rust_tests(source), {"runs"})
        source = """
class Base:
    def test_a(self): pass
class Run(Base):
    def test_b(self): pass
class Left(Base):
    def test_c(self): pass
main("suite", *[Run])
"""
        self.assertEqual(cases_in(source), {"Run": {"test_b"}})

    def test_what_is_there_is_found(self):
        for name in (
            "api::http_v2::every_datatype_in_json_and_in_binary",
            "gateway::http::v2::split::other_lengths_are_refused",
            "gateway::http::coding::the_heaviest_coding_wins_and_the_first_of_equals",
            "protocol::shape::element_counts_are_checked",
            "allocations::a_request_allocates_no_more_than_it_did",
            "triton.Health.live",
        ):
            self.assertTrue(is_there(name), name)

    def test_rows_are_read(self):
        page = "| rule | a |\n|---|---|\n| A1.1 | x `a\\|b` | `triton.Health.live` |\n| flag | B1.1 |\n"
        self.assertEqual(rules(page), [("A1.1", ["A1.1", "x `a\\|b`", "`triton.Health.live`"])])


if __name__ == "__main__":
    unittest.main()
