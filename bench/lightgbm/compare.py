#!/usr/bin/env python3
"""Compares Sluice's learner with LightGBM on the same frame, one thread each.

The frame is a CSV with a header `split,label,<columns...>`: split is train, validation or
test, an empty cell is a missing value. Both sides train on `train`, stop early on
`validation` and are judged on `test`, with the settings in SETTINGS below.

Sluice's side is a JSON file (`--ours`), written by the trainer's example `learner`, or by
whatever `--command` says, which is run before each repetition so that both sides meet the
same noise:
    {"format": 1, "results": [{"objective": "squared", "mae": 2.2, "rmse": 4.9,
                               "cpu_seconds": 1.9, "rounds": 120}, ...]}
In the command `{seed}` is replaced by the repetition's seed, `{frame}` and `{ours}` by the
files:
    cargo build --release -p sluice-trainer --example learner
    compare.py --frame FRAME.csv --ours OURS.json \\
        --command 'target/release/examples/learner {frame} {seed} {ours}'

CPU seconds are user + system time of training, from raw numbers in memory to a model:
binning is counted, reading files and predicting the test rows is not. Medians over the
repetitions are compared. Exit status: 0 within the bounds, 1 outside, 2 unusable input.
"""

import argparse
import json
import shlex
import statistics
import subprocess
import sys
import time

import lightgbm
import numpy

OBJECTIVES = {
    "squared": {"objective": "regression"},
    "poisson": {"objective": "poisson"},
    "tweedie": {"objective": "tweedie", "tweedie_variance_power": 1.3},
    "absolute": {"objective": "regression_l1"},
}
SETTINGS = {
    "learning_rate": 0.05,
    "num_leaves": 31,
    "min_data_in_leaf": 20,
    "min_sum_hessian_in_leaf": 1e-3,
    "max_bin": 255,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "feature_fraction": 0.8,
    "num_threads": 1,
    "verbose": -1,
}
MAX_ROUNDS = 1000
EARLY_STOPPING_ROUNDS = 50
SPLITS = ("train", "validation", "test")


def main():
    arguments = parse_arguments()
    frame = read_frame(arguments.frame)
    ours, theirs = [], []
    for seed in range(1, arguments.repeat + 1):
        if arguments.command:
            run_ours(arguments, seed)
        if arguments.command or not ours:
            ours.append(read_ours(arguments.ours))
        theirs.append({name: train(frame, own, seed) for name, own in OBJECTIVES.items()})
    rows = [compare(name, ours, theirs, arguments) for name in OBJECTIVES]
    print_table(rows, len(ours), len(theirs))
    return 0 if all(row["within"] for row in rows) else 1


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frame", required=True, help="CSV: split,label,<columns...>")
    parser.add_argument("--ours", required=True, help="JSON with Sluice's results")
    parser.add_argument("--command", help="writes the JSON; {seed}, {frame} and {ours} are filled in")
    parser.add_argument("--repeat", type=int, default=3, help="repetitions, each its own seed")
    parser.add_argument("--mae-bound", type=float, default=1.015, help="ours / LightGBM's")
    parser.add_argument("--cpu-bound", type=float, default=1.3, help="ours / LightGBM's")
    arguments = parser.parse_args()
    if arguments.repeat < 1:
        parser.error("--repeat must be at least 1")
    return arguments


def read_frame(path):
    """{split: (features as float32 rows, labels)}"""
    parts = {name: [] for name in SPLITS}
    with open(path, encoding="utf-8") as file:
        header = file.readline().rstrip("\n").split(",")
        if header[:2] != ["split", "label"] or len(header) < 3:
            unusable(f"{path}: the header must be split,label,<columns...>")
        for number, line in enumerate(file, start=2):
            split, _, numbers = line.rstrip("\n").partition(",")
            if split not in parts:
                unusable(f"{path}: line {number}: unknown split {split!r}")
            row = [float(cell) if cell else numpy.nan for cell in numbers.split(",")]
            if len(row) != len(header) - 1:
                unusable(f"{path}: line {number}: {len(row) + 1} cells, not {len(header)}")
            parts[split].append(numpy.array(row, dtype=numpy.float32))
    if not all(parts.values()):
        unusable(f"{path}: needs rows of each split: {', '.join(SPLITS)}")
    stacked = {name: numpy.stack(rows) for name, rows in parts.items()}
    return {name: (rows[:, 1:].copy(), rows[:, 0].copy()) for name, rows in stacked.items()}


def train(frame, objective, seed):
    before = time.process_time()
    training = lightgbm.Dataset(*frame["train"], params=SETTINGS)
    booster = lightgbm.train(
        {**SETTINGS, **objective, "seed": seed},
        training,
        num_boost_round=MAX_ROUNDS,
        valid_sets=[lightgbm.Dataset(*frame["validation"], reference=training)],
        callbacks=[lightgbm.early_stopping(EARLY_STOPPING_ROUNDS, verbose=False)],
    )
    cpu_seconds = time.process_time() - before
    features, labels = frame["test"]
    errors = booster.predict(features, num_threads=1) - labels
    return {
        "mae": float(numpy.abs(errors).mean()),
        "rmse": float(numpy.sqrt((errors**2).mean())),
        "cpu_seconds": cpu_seconds,
        "rounds": booster.best_iteration,
    }


def run_ours(arguments, seed):
    values = {"{seed}": str(seed), "{frame}": arguments.frame, "{ours}": arguments.ours}
    words = [values.get(word, word) for word in shlex.split(arguments.command)]
    try:
        subprocess.run(words, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        unusable(f"the command failed: {error}")


def read_ours(path):
    try:
        with open(path, encoding="utf-8") as file:
            report = json.load(file)
    except (OSError, ValueError) as error:
        unusable(f"{path}: {error}")
    if report.get("format") != 1:
        unusable(f"{path}: format {report.get('format')} is not 1")
    results = {result["objective"]: result for result in report["results"]}
    missing = OBJECTIVES.keys() - results.keys()
    if missing:
        unusable(f"{path}: no result for {', '.join(sorted(missing))}")
    return results


def compare(name, ours, theirs, arguments):
    def median(sides, key):
        return statistics.median(side[name][key] for side in sides)

    row = {"objective": name}
    for key in ("mae", "rmse", "cpu_seconds", "rounds"):
        row[key] = (median(ours, key), median(theirs, key))
    row["mae_ratio"] = row["mae"][0] / row["mae"][1]
    row["cpu_ratio"] = row["cpu_seconds"][0] / row["cpu_seconds"][1]
    row["within"] = (
        row["mae_ratio"] <= arguments.mae_bound and row["cpu_ratio"] <= arguments.cpu_bound
    )
    return row


def print_table(rows, ours, theirs):
    print(f"Sluice / LightGBM {lightgbm.__version__}, medians of {ours} and {theirs} runs")
    print("| objective | MAE | ratio | RMSE | CPU s | ratio | rounds | |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        cells = [
            row["objective"],
            "{:.4f} / {:.4f}".format(*row["mae"]),
            "{:.4f}".format(row["mae_ratio"]),
            "{:.3f} / {:.3f}".format(*row["rmse"]),
            "{:.2f} / {:.2f}".format(*row["cpu_seconds"]),
            "{:.2f}".format(row["cpu_ratio"]),
            "{:.0f} / {:.0f}".format(*row["rounds"]),
            "within" if row["within"] else "OUTSIDE",
        ]
        print("| " + " | ".join(cells) + " |")


def unusable(message):
    print(message, file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    sys.exit(main())
