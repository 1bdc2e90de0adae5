#!/usr/bin/env python3
"""How long a command takes from the prompt to its last line, beside `python -c "import transformers"`.

    bench/startup.py [--runs N] [--binary target/release/glasshead] [--python PYTHON] [--record FILE.json]

Runs the commands in turn (A B C A B C …), so that a slow moment of the machine hits all of them, and prints
best and median of each, and the ratio of the medians to the Python import. Without --python it makes a
virtual environment in a temporary folder and installs transformers there (no torch: the import alone is
measured, which favours Python). `glasshead models pull minilm` must have run.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
SENTENCE = "The animal crossed the busy street because it was tired"


def seconds(command):
    start = time.perf_counter()
    subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def cpu():
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--binary", default=str(ROOT / "target/release/glasshead"))
    parser.add_argument("--python", help="an interpreter that has transformers")
    parser.add_argument("--record", help="write the figures to this file")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        python = args.python
        if python is None:
            subprocess.run([sys.executable, "-m", "venv", folder], check=True)
            python = os.path.join(folder, "bin", "python")
            subprocess.run([python, "-m", "pip", "install", "--quiet", "transformers"], check=True)
        commands = {
            "explain, worked example": [args.binary, "explain", "--format", "json"],
            "explain, ten words, minilm from a warm cache": [args.binary, "explain", SENTENCE, "--format", "json"],
            "python -c 'import transformers'": [python, "-c", "import transformers"],
        }
        version = [python, "-c", "import transformers, sys; print(transformers.__version__, sys.version.split()[0])"]
        transformers, interpreter = subprocess.run(version, check=True, capture_output=True, text=True).stdout.split()
        times = {name: [] for name in commands}
        for command in commands.values():
            seconds(command)
        for _ in range(args.runs):
            for name, command in commands.items():
                times[name].append(seconds(command))

    base = statistics.median(times["python -c 'import transformers'"])
    rows = {
        name: {
            "best_ms": round(min(run) * 1e3, 2),
            "median_ms": round(statistics.median(run) * 1e3, 2),
            "ratio_to_import": round(statistics.median(run) / base, 4),
        }
        for name, run in times.items()
    }
    glasshead = subprocess.run([args.binary, "--version"], check=True, capture_output=True, text=True).stdout.strip()
    record = {
        "what": "whole commands from a warm cache, interleaved",
        "command": f"bench/startup.py --runs {args.runs}",
        "date": datetime.date.today().isoformat(),
        "cpu": cpu(),
        "cores": os.cpu_count(),
        "versions": {"glasshead": glasshead, "transformers": transformers, "python": interpreter},
        "runs": args.runs,
        "results": rows,
    }
    for name, row in rows.items():
        print(f"{name:46} best {row['best_ms']:8.2f} ms   median {row['median_ms']:8.2f} ms   × {row['ratio_to_import']:.4f}")
    if args.record:
        pathlib.Path(args.record).write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
