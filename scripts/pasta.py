#!/usr/bin/env python3
"""Reshapes an Italian grocery's daily pasta sales from a column per product to a row per product and day.

    scripts/pasta.py IN.csv OUT_DIR      writes OUT_DIR/pasta.csv: store_id,brand,date,promo,units

The input is "Data for: A machine learning approach for forecasting hierarchical time series"
(Mancuso, Piccialli, Sudoso 2021, Mendeley Data, doi 10.17632/njdkntcpc9.1, CC BY 4.0); it is not
part of this repository. Each product is read as a store of its own, numbered in column order, so
that the file has the shape of a retail chain's demand.
"""

import csv
import re
import sys
from datetime import date
from pathlib import Path

UNITS = re.compile(r"QTY_B(\d+)_(\d+)")


def main():
    if len(sys.argv) != 3:
        sys.exit("usage: pasta.py IN.csv OUT_DIR")
    source, folder = Path(sys.argv[1]), Path(sys.argv[2])
    with source.open(newline="", encoding="utf-8") as file:
        rows = reshape(csv.DictReader(file))
    folder.mkdir(parents=True, exist_ok=True)
    partial, target = folder / "pasta.csv.partial", folder / "pasta.csv"
    with partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["store_id", "brand", "date", "promo", "units"])
        writer.writerows(rows)
    partial.replace(target)
    print(f"pasta: {len(rows):,} rows, {len({row[0] for row in rows})} stores, "
          f"{rows[0][2]} to {rows[-1][2]}, wrote {target}")


def reshape(reader):
    """The rows (store, brand, date, promo, units), sorted by store and date."""
    columns = reader.fieldnames or []
    products = [match for match in map(UNITS.fullmatch, columns) if match]
    if "DATE" not in columns or not products:
        fail("expected a DATE column and QTY_B<brand>_<product> columns")
    missing = [promo_column(product) for product in products if promo_column(product) not in columns]
    if missing:
        fail(f"column {missing[0]} is missing")
    days = sorted(reader, key=lambda day: day["DATE"])
    return [
        (store, int(product[1]), iso(day["DATE"]), whole(day, promo_column(product)), whole(day, product[0]))
        for store, product in enumerate(products, start=1)
        for day in days
    ]


def promo_column(product):
    return f"PROMO_B{product[1]}_{product[2]}"


def iso(text):
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        fail(f"'{text}' is not a date")


def whole(day, column):
    """The cell as a whole number; the source writes some as 3.0."""
    try:
        number = float(day[column])
    except (TypeError, ValueError):
        fail(f"column {column} on {day['DATE']} holds '{day[column]}', expected a number")
    if number != int(number) or number < 0:
        fail(f"column {column} on {day['DATE']} holds {day[column]}, expected a whole number from 0 on")
    return int(number)


def fail(message):
    sys.exit(f"pasta: {message}")


if __name__ == "__main__":
    main()
