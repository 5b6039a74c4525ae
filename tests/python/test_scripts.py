"""The scripts that make data, count tests and fetch a library, on small inputs of their own; nothing is downloaded."""

import contextlib
import csv
import importlib.util
import io
import os
import shutil
import subprocess
import sys
import tempfile
import unittest
from collections import Counter
from datetime import datetime
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent.parent.parent / "scripts"


def load(name):
    """A script as a module; their names hold hyphens, so `import` cannot."""
    spec = importlib.util.spec_from_file_location(name.replace("-", "_"), SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


retail = load("online-retail")
pasta = load("pasta")
summary = load("test-summary")


def line(day="2010-01-04", article="10001", units=1, pence=100, *, store="A", invoice="1", customer="7", hour=9):
    time = datetime.fromisoformat(f"{day}T{hour:02d}:00")
    return retail.Line(invoice, article, "", units, time, pence * 10, customer, store)


def rows(sales):
    text = retail.daily_sales(sales, retail.number_stores(sales), Counter())
    return list(csv.reader(io.StringIO(text)))[1:]


class Cleaning(unittest.TestCase):
    def test_lines_that_are_not_sales(self):
        for expected, changes in [
            (None, {}),
            (None, {"article": "84508A"}),
            (None, {"article": "DCGSSBOY"}),
            ("not an article", {"article": "POST"}),
            ("not an article", {"article": "23444"}),
            ("not an article", {"article": "GIFT_0001_20"}),
            ("not an article", {"article": "1000"}),
            ("not an article", {"article": "POST", "invoice": "C1"}),
            ("article on a cancelled invoice", {"invoice": "C1", "units": -1}),
            ("stock correction", {"units": -5}),
            ("stock correction", {"units": 0}),
            ("price of zero", {"pence": 0}),
        ]:
            reason = retail.reason_to_drop(line(**changes))
            self.assertTrue(reason is None if expected is None else reason.startswith(expected), (changes, reason))

    def test_only_a_whole_reversal_by_the_same_customer_on_the_same_day_takes_a_sale_back(self):
        sale = line(units=5)
        for left, changes in [
            (0, {}),
            (1, {"units": -4}),
            (1, {"day": "2010-01-05"}),
            (1, {"customer": "8"}),
            (1, {"pence": 99}),
            (1, {"article": "10002"}),
            (1, {"hour": 8}),
        ]:
            back = line(**{"units": -5, "hour": 10, "invoice": "C2"} | changes)
            self.assertEqual(len(retail.drop_reversed([sale], [back], Counter())), left, changes)

    def test_one_reversal_takes_one_of_two_equal_sales(self):
        back = line(units=-1, hour=10, invoice="C2")
        self.assertEqual(len(retail.drop_reversed([line(), line()], [back], Counter())), 1)

    def test_unknown_customers_are_not_matched(self):
        sale, back = line(customer=""), line(units=-1, customer="", hour=10)
        self.assertEqual(len(retail.drop_reversed([sale], [back], Counter())), 1)


class Days(unittest.TestCase):
    def test_ids_ascend_by_days_with_sales_and_ties_by_name(self):
        sales = [line(store="Z"), line(store="B"), line(store="A"), line("2010-01-05", store="A")]
        self.assertEqual(retail.number_stores(sales), {"B": 1, "Z": 2, "A": 3})

    def test_a_day_without_sales_is_a_zero_and_a_closed_day_has_no_row(self):
        sales = [line("2010-01-04", store="A"), line("2010-01-05", store="B", units=2, pence=105),
                 line("2010-01-07", store="A"), line("2010-01-07", store="A", invoice="2")]
        self.assertEqual(rows(sales), [
            ["1", "2010-01-05", "2", "2.10", "1", "0"],
            ["1", "2010-01-07", "0", "0.00", "0", "0"],
            ["2", "2010-01-04", "1", "1.00", "1", "0"],
            ["2", "2010-01-05", "0", "0.00", "0", "0"],
            ["2", "2010-01-07", "2", "2.00", "2", "0"],
        ])

    def test_the_order_of_the_lines_does_not_matter(self):
        sales = [line(f"2010-01-{day:02d}", pence=90 + day, store=store) for day in range(4, 9) for store in "AB"]
        self.assertEqual(rows(sales), rows(sales[::-1]))

    def test_promotion_needs_more_than_35_percent_of_units_at_ten_percent_off(self):
        for promo, cheap, full, pence in [("1", 36, 64, 90), ("0", 35, 65, 90), ("0", 100, 0, 91), ("1", 1, 0, 90)]:
            sales = [line("2010-01-04"), line("2010-01-05", units=cheap, pence=pence)]
            sales += [line("2010-01-05", units=full)] if full else []
            self.assertEqual(rows(sales)[-1][-1], promo, (cheap, full, pence))

    def test_the_median_is_of_the_28_days_before_and_not_of_the_day_itself(self):
        for doubled, earlier in [(None, []), (2000, [("2010-01-04", 100)]), (None, [("2010-01-03", 100)]),
                                 (1900, [("2010-01-20", 100), ("2010-01-31", 90)])]:
            sales = [line(day, pence=pence) for day, pence in earlier] + [line("2010-02-01", pence=50)]
            medians = retail.median_prices(sales)
            self.assertEqual(medians["10001", datetime(2010, 2, 1).date()], doubled, earlier)


class Pasta(unittest.TestCase):
    def reshape(self, text):
        return pasta.reshape(csv.DictReader(io.StringIO(text)))

    def test_products_become_stores_in_column_order(self):
        text = "DATE,QTY_B1_2,QTY_B3_1,PROMO_B1_2,PROMO_B3_1\n2014-01-03,4,5.0,1,0\n2014-01-02,2,0,0,1\n"
        self.assertEqual(self.reshape(text), [
            (1, 1, "2014-01-02", 0, 2), (1, 1, "2014-01-03", 1, 4),
            (2, 3, "2014-01-02", 1, 0), (2, 3, "2014-01-03", 0, 5),
        ])

    def test_broken_files_are_refused(self):
        for part, text in [
            ("expected a DATE column", "DAY,QTY_B1_1\n"),
            ("column PROMO_B1_1 is missing", "DATE,QTY_B1_1\n"),
            ("'soon' is not a date", "DATE,QTY_B1_1,PROMO_B1_1\nsoon,1,0\n"),
            ("expected a number", "DATE,QTY_B1_1,PROMO_B1_1\n2014-01-02,many,0\n"),
            ("a whole number", "DATE,QTY_B1_1,PROMO_B1_1\n2014-01-02,1.5,0\n"),
            ("expected a number", "DATE,QTY_B1_1,PROMO_B1_1\n2014-01-02,1\n"),
        ]:
            with self.assertRaises(SystemExit) as refused:
                self.reshape(text)
            self.assertIn(part, str(refused.exception))


class Summary(unittest.TestCase):
    LOG = """
     Running unittests src/lib.rs (target/debug/deps/it-1)
test a ... ok
test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out
     Running tests/it/main.rs (target/debug/deps/it-2)
test slow ... ignored, needs a week
\x1b[1mtest result: FAILED. 1 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out\x1b[0m
   Doc-tests sluice_protocol
test result: ok. 4 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out
"""
    BINARIES = """\
{"executable":"/t/debug/deps/it-1","package_id":"path+file:///src/protocol#sluice-protocol@0.1.0"}
{"executable":"/t/debug/deps/it-2","package_id":"path+file:///src/gateway#0.1.0"}
{"reason":"build-finished","success":true}
"""

    def test_tests_are_counted_by_crate(self):
        counts, ignored = summary.count(self.LOG, summary.crates_of_binaries(self.BINARIES))
        self.assertEqual(dict(counts), {"sluice-protocol": [7, 0, 0], "gateway": [1, 2, 1]})
        self.assertEqual(ignored, ["gateway: slow"])

    def test_suites_of_clients_are_found_anywhere_in_a_line(self):
        log = "test curl ... clients: curl: 27 cases, 0 failed, 0 skipped\nok\nclients: a_b: 3 cases, 1 failed, 2 skipped\n"
        found = [("a_b", "3 cases, 1 failed, 2 skipped"), ("curl", "27 cases, 0 failed, 0 skipped")]
        self.assertEqual(summary.clients(log), found)

    def test_a_run_without_tests_has_no_counts(self):
        self.assertEqual(summary.count("error: could not compile\n", {}), ({}, []))


class Check(unittest.TestCase):
    def test_a_changed_file_is_noticed(self):
        with contextlib.redirect_stderr(io.StringIO()) as errors, contextlib.redirect_stdout(io.StringIO()):
            self.assertFalse(retail.same_as_committed({"stores.csv": "store_id,name\n"}))
            self.assertTrue(retail.same_as_committed({"stores.csv": (retail.DATA / "stores.csv").read_text()}))
        self.assertIn("stores.csv differs", errors.getvalue())


class OnnxRuntime(unittest.TestCase):
    """In a tree where nothing is installed, with a Python that is not there: nothing can be fetched."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.tree = Path(folder.name).resolve()
        (self.tree / "scripts").mkdir()
        for name in ["setup-onnxruntime.sh", "onnxruntime.sha256"]:
            shutil.copy(SCRIPTS / name, self.tree / "scripts")
        self.library = self.tree / "mine.so"
        self.library.touch()
        self.default = self.tree / ".tools/onnxruntime/libonnxruntime.so"

    def run_with(self, **variables):
        environment = {"PATH": os.environ["PATH"], "PYTHON": "/nonexistent/python", **variables}
        command = [self.tree / "scripts/setup-onnxruntime.sh"]
        done = subprocess.run(command, env=environment, cwd=self.tree, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    def test_a_library_that_is_named_is_not_fetched(self):
        for variables, name in [
            ({"SLUICE_ONNXRUNTIME": str(self.library)}, "SLUICE_ONNXRUNTIME"),
            ({"SLUICE_ONNXRUNTIME": "mine.so"}, "SLUICE_ONNXRUNTIME"),
            ({"ORT_DYLIB_PATH": str(self.library)}, "ORT_DYLIB_PATH"),
            ({"SLUICE_ONNXRUNTIME": str(self.library), "ORT_DYLIB_PATH": "/gone"}, "SLUICE_ONNXRUNTIME"),
        ]:
            code, said = self.run_with(**variables)
            self.assertEqual((code, said), (0, f"onnxruntime: {name} names {self.library}, nothing is fetched\n"))

    def test_a_named_library_that_is_not_there_is_told_of(self):
        for name in ["SLUICE_ONNXRUNTIME", "ORT_DYLIB_PATH"]:
            code, said = self.run_with(**{name: "/gone/lib.so"})
            self.assertEqual(code, 1)
            self.assertIn(f"{name} names /gone/lib.so, which is not there", said)

    def test_the_one_that_make_names_is_fetched(self):
        link = self.tree / "link"
        link.symlink_to(self.tree)
        for variables in [
            {},
            {"SLUICE_ONNXRUNTIME": str(self.default)},
            {"SLUICE_ONNXRUNTIME": str(link / ".tools/onnxruntime/libonnxruntime.so")},
            {"SLUICE_ONNXRUNTIME": str(self.default), "ORT_DYLIB_PATH": str(self.library)},
        ]:
            code, said = self.run_with(**variables)
            self.assertEqual(code, 1)
            self.assertIn("/nonexistent/python is not there", said)


if __name__ == "__main__":
    unittest.main()
