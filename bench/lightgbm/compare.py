#!/usr/bin/env python3
"""Compares `sluice train run` with LightGBM on the same frame, one thread each.

    compare.py PIPELINE.toml --sluice target/release/sluice

Each repetition has its own seed and trains every objective twice, one side right after the
other, so that both meet the same noise. The first run of Sluice writes the frame that LightGBM
reads. Both sides train on its `train` rows, stop early on `validation` and are judged on `test`.
LightGBM's settings are those of the pipeline's [learner].

CPU seconds are user + system time of training, from raw numbers in memory to a model: binning is
counted, reading files and predicting the test rows is not. Medians over the repetitions are
compared. Exit status: 0 within the bounds, 1 outside, 2 when something could not be run.
"""

import argparse
import json
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

import lightgbm
import numpy

# What each side calls an objective.
OBJECTIVES = {
    "squared": ("squared", {"objective": "regression"}),
    "poisson": ("poisson", {"objective": "poisson"}),
    "tweedie 1.3": (
        "{ tweedie = { power = 1.3 } }",
        {"objective": "tweedie", "tweedie_variance_power": 1.3},
    ),
    "absolute": ("absolute", {"objective": "regression_l1"}),
}
# What LightGBM calls a setting of [learner]; the others must not be there.
SETTINGS = {
    "learning_rate": "learning_rate",
    "max_leaves": "num_leaves",
    "min_rows_per_leaf": "min_data_in_leaf",
    "min_hessian_per_leaf": "min_sum_hessian_in_leaf",
    "lambda_l2": "lambda_l2",
    "min_gain": "min_gain_to_split",
    "max_bins": "max_bin",
    "row_fraction": "bagging_fraction",
    "column_fraction": "feature_fraction",
}
# What each run sets by itself, and what LightGBM takes as arguments of its own.
OTHER_SETTINGS = ("objective", "seed", "max_rounds", "early_stopping_rounds")
SPLITS = ("train", "validation", "test")


def main():
    arguments = parse_arguments()
    learner = read_learner(arguments.pipeline)
    ours, theirs = [], []
    with tempfile.TemporaryDirectory(prefix="sluice-compare-") as folder:
        folder, frame = Path(folder), None
        for seed in range(1, arguments.repeat + 1):
            ours.append({})
            theirs.append({})
            for name, (objective, parameters) in OBJECTIVES.items():
                ours[-1][name] = run_sluice(arguments, objective, seed, folder)
                frame = frame or read_frame(folder / "frame.csv")
                theirs[-1][name] = train_lightgbm(frame, learner, parameters, seed)
                print_run(seed, name, ours[-1][name], theirs[-1][name])
    rows = [compare(name, ours, theirs, arguments) for name in OBJECTIVES]
    print_table(rows, frame, arguments.repeat, ours[0]["squared"]["baselines"])
    return 0 if all(row["within"] for row in rows) else 1


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pipeline", type=Path, help="pipeline file of `sluice train run`")
    parser.add_argument("--sluice", required=True, help="the program")
    parser.add_argument("--repeat", type=int, default=3, help="repetitions, each its own seed")
    parser.add_argument("--mae-bound", type=float, default=1.015, help="ours / LightGBM's")
    parser.add_argument("--cpu-bound", type=float, default=1.3, help="ours / LightGBM's")
    arguments = parser.parse_args()
    if arguments.repeat < 1:
        parser.error("--repeat must be at least 1")
    return arguments


def read_learner(path):
    try:
        learner = tomllib.loads(path.read_text(encoding="utf-8"))["learner"]
    except (OSError, ValueError, KeyError) as error:
        stop(f"{path}: {type(error).__name__}: {error}")
    unknown = learner.keys() - SETTINGS.keys() - set(OTHER_SETTINGS)
    # Left out, a setting has each side's own default, and those are not alike.
    required = SETTINGS.keys() - {"lambda_l2", "min_gain"} | {"max_rounds", "early_stopping_rounds"}
    if unknown or required - learner.keys():
        names = ", ".join(sorted(unknown | (required - learner.keys())))
        stop(f"{path}: [learner] cannot be compared, look at: {names}")
    return learner


def run_sluice(arguments, objective, seed, folder):
    """Trains once; the first time it writes the frame."""
    frame = folder / "frame.csv"
    with tempfile.TemporaryDirectory(dir=folder) as run:
        out = Path(run) / "out"
        command = [arguments.sluice, "train", "run", str(arguments.pipeline), "--out", str(out)]
        command += ["--set", f"learner.objective={objective}", "--set", f"learner.seed={seed}"]
        if not frame.exists():
            command += ["--frame-out", str(frame)]
        try:
            subprocess.run(command, check=True, stdout=subprocess.PIPE)
            report = json.loads((out / "report.json").read_text(encoding="utf-8"))
        except subprocess.CalledProcessError as error:
            stop(f"sluice train run ended with {error.returncode}: {shlex.join(command)}")
        except (OSError, ValueError) as error:
            stop(f"sluice train run ({objective}, seed {seed}) gave no result: {error}")
    if report.get("format") != 1:
        stop(f"report.json: format {report.get('format')} is not 1")
    if report["cpu_seconds"] is None:
        stop("sluice could not tell its CPU time on this machine")
    judgement = report["judgement"]
    return {
        "mae": judgement["measures"]["mae"],
        "rmse": judgement["measures"]["rmse"],
        "cpu_seconds": report["cpu_seconds"],
        "rounds": report["rounds"],
        "baselines": {rival["name"]: rival["measures"] for rival in judgement["baselines"]},
    }


def read_frame(path):
    """{split: (features as float32 rows, labels)} of a CSV `split,label,<columns...>`, in which
    an empty cell is a missing value"""
    parts = {name: [] for name in SPLITS}
    with path.open(encoding="utf-8") as file:
        columns = file.readline().count(",")
        for line in file:
            split, _, numbers = line.rstrip("\n").partition(",")
            row = [float(cell) if cell else numpy.nan for cell in numbers.split(",")]
            if split not in parts or len(row) != columns:
                stop(f"{path.name}: unusable line {line!r}")
            parts[split].append(numpy.array(row, dtype=numpy.float32))
    stacked = {name: numpy.stack(rows) for name, rows in parts.items()}
    return {name: (rows[:, 1:].copy(), rows[:, 0].copy()) for name, rows in stacked.items()}


def train_lightgbm(frame, learner, objective, seed):
    settings = {SETTINGS[name]: value for name, value in learner.items() if name in SETTINGS}
    settings |= {"bagging_freq": 1, "num_threads": 1, "verbose": -1}
    patience = learner["early_stopping_rounds"]
    before = time.process_time()
    training = lightgbm.Dataset(*frame["train"], params=settings)
    booster = lightgbm.train(
        {**settings, **objective, "seed": seed},
        training,
        num_boost_round=learner["max_rounds"],
        valid_sets=[lightgbm.Dataset(*frame["validation"], reference=training)],
        callbacks=[lightgbm.early_stopping(patience, verbose=False)],
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


def print_run(seed, name, ours, theirs):
    sides = "; ".join(
        "{} MAE {mae:.4f}, {cpu_seconds:.2f} s CPU, {rounds} rounds".format(side, **result)
        for side, result in (("Sluice", ours), ("LightGBM", theirs))
    )
    print(f"seed {seed}, {name}: {sides}", flush=True)


def print_table(rows, frame, repeat, baselines):
    examples = ", ".join(f"{name} {len(labels)}" for name, (_, labels) in frame.items())
    print(f"\n{frame['train'][0].shape[1]} columns; rows: {examples}")
    for name, measures in baselines.items():
        print("{}: MAE {mae:.4f}, RMSE {rmse:.3f}".format(name, **measures))
    print(f"Sluice / LightGBM {lightgbm.__version__}, medians of {repeat} seeds\n")
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


def stop(message):
    print(message, file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    sys.exit(main())
