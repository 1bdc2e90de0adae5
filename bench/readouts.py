#!/usr/bin/env python3
"""What it costs to see into attention: added time, extra memory, and the way people do it today.

    cargo build --release
    bench/readouts.py --added --memory --eager --record bench/records/DATE-readouts.json
    bench/readouts.py --tables bench/records/DATE-readouts.json
    bench/readouts.py --picture docs/readouts.svg bench/records/DATE-readouts.json

--added   runs with and without readouts in turns, in one process on the same threads; a ratio is formed of neighbours
--memory  bytes held beside inputs and outputs at 131,072 tokens
--eager   output, entropy, top 8 and received, against torch with its softmax(QKᵀ) kept until that does not fit

A record that exists is added to (other machines and other builds are refused), so that the parts can run apart and
--added can collect its rounds in several short runs: `--only TEXT` chooses cases of --added, `--sizes N …` those of
--eager. Every measurement is a process of its own; those of --eager are made again where other programs had too much
of the CPUs.
torch is installed into bench/.venv, or taken from `--python`.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time

from attention import BINARY, HERE, ROOT, environment, said
from readouts_picture import picture

PACKAGES = ["numpy", "torch"]


def ends(keys, count=16):
    """The ends of so many equal segments."""
    return ":".join(str(keys * at // count) for at in range(1, count + 1))


def lists(keys):
    """What is read out, by name."""
    sums = f"lse,entropy,max,distance,segments={ends(keys)},blocks=64"
    return {"lse, entropy, max, distance, 16 segments, blocks of 64": sums, "received": "received", "top 8": "top=8",
            "all of these at once": f"{sums},received,top=8"}


# Added time in percent that each of the lists may cost at most, for f32; bf16 may cost half as much again.
SHAPES = [
    {"name": "causal 4096, 8 heads, d 128", "queries": 4096, "heads": 8, "dim": 128, "limits": [5, 5, 8, 15]},
    {"name": "causal 2048, 12 heads, d 64", "queries": 2048, "heads": 12, "dim": 64, "limits": [10, 8, 15, 28]},
]
CASES = [
    shape | {"name": f"{shape['name']}, {dtype}", "dtype": dtype, "limits": [x * more for x in shape["limits"]]}
    for shape in SHAPES
    for dtype, more in (("f32", 1), ("bf16", 1.5))
]
LONG = {"name": "causal 131,072, one head, d 64, f32", "queries": 131072, "heads": 1, "dim": 64, "dtype": "f32"}
LONG_LIMIT = 64 << 20
EAGER = {"heads": 4, "dim": 64, "dtype": "f32"}
EAGER_READ = "entropy,top=8,received"
# How much of the CPUs other programs may have had in a measurement that counts, and how often it is tried.
MOST_OTHERS, ATTEMPTS = 0.03, 4
SIZES = [1024, 2048, 4096, 8192, 16384, 32768]


def busy_seconds():
    """CPU time of the whole machine, with what its host took away."""
    user, nice, system, _, _, irq, softirq, stolen, *_ = map(int, open("/proc/stat").readline().split()[1:])
    return (user + nice + system + irq + softirq + stolen) / os.sysconf("SC_CLK_TCK")


class Process:
    """A process that has run: what it said, how long it took, its peak memory, and the share of others."""

    def __init__(self, command):
        with tempfile.TemporaryFile("w+") as said:
            start, busy = time.perf_counter(), busy_seconds()
            process = subprocess.Popen([*map(str, command)], stdout=said)
            _, status, usage = os.wait4(process.pid, 0)
            self.seconds = time.perf_counter() - start
            others = busy_seconds() - busy - usage.ru_utime - usage.ru_stime
            self.others = others / self.seconds / os.cpu_count()
            self.peak = usage.ru_maxrss * 1024
            if status:
                sys.exit(f"{command[0]} failed: status {status}")
            said.seek(0)
            self.said = said.read()


def undisturbed(measure):
    """The first of several measurements, each a list of processes, in which others had hardly any CPU."""
    for _ in range(ATTEMPTS):
        processes = measure()
        others = max(process.others for process in processes)
        if others <= MOST_OTHERS:
            return processes
    sys.exit(f"other programs took {others:.0%} of the CPUs: nothing is measured that way")


def bench(shape, threads, read=None, seconds=2):
    """One process of `glasshead bench attention`."""
    command = [BINARY, "bench", "attention", "--causal", "bottom-right", "--format", "json", "--threads", threads]
    command += ["--seconds", seconds]
    for key in ("queries", "heads", "dim", "dtype"):
        command += [f"--{key}", shape[key]]
    command += ["--read", read] if read else []
    return Process(command)


# ------------------------------------------------------------------ added time


def added(case, threads, rounds, seconds, before):
    """Each list in a process of its own, in turns; there runs with and without it take turns."""
    if before and before["threads"] != threads:
        sys.exit(f"the record is of {before['threads']} threads")
    reads = lists(case["queries"])
    measured = {name: list(before["lists"][name]["rounds"]) if before else [] for name in reads}
    fractions, isa = [before["plain_fraction_of_peak"]] if before else [], None
    for _ in range(rounds):
        for name, read in reads.items():
            process = bench(case, threads, read, seconds)
            answer = json.loads(process.said)
            isa = answer["isa"]
            fractions.append(answer["fraction_of_peak"] * answer["min_ms"] / answer["plain_min_ms"])
            keys = ("plain_min_ms", "min_ms", "added_median_percent", "runs")
            measured[name].append({key: answer[key] for key in keys} | {"others": process.others})
    figures = {}
    for (name, ran), limit in zip(measured.items(), case["limits"]):
        best = {key: min(x[key] for x in ran) for key in ("plain_min_ms", "min_ms")}
        figures[name] = {
            "median_percent": statistics.median(x["added_median_percent"] for x in ran),
            "best_percent": 100 * (best["min_ms"] / best["plain_min_ms"] - 1),
            "limit_percent": limit, "rounds": ran,
        }
    return case | {"threads": threads, "isa": isa, "plain_best_ms": min(x["plain_min_ms"] for x in sum(measured.values(), [])),
                   "plain_fraction_of_peak": max(fractions), "lists": figures}


def added_table(cases):
    """The medians beside their limits as Markdown, what is above its limit in bold."""
    lines = [f"| added time | {' | '.join(case['name'] for case in cases)} |", "|---|" + "--:|" * len(cases)]
    for name in cases[0]["lists"]:
        cells = []
        for case in cases:
            value, limit = case["lists"][name]["median_percent"], case["lists"][name]["limit_percent"]
            value = f"{value:.1f} %" if value <= limit else f"**{value:.1f} %**"
            cells.append(f"{value} (≤ {limit:g})")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


# ------------------------------------------------------------------ extra memory


def memory(threads):
    """`extra_bytes`: what the run holds beside q, k, v, out and the arrays of the readouts."""
    n, figures = LONG["queries"], {}
    read = f"lse,entropy,max,distance,top=8,received,segments={ends(n)},blocks=64"
    for name, what in {"none": None, "all but rows, blocks of 64": read}.items():
        figures[name] = {"extra_bytes": json.loads(bench(LONG, threads, what).said)["extra_bytes"]}
    return LONG | {"threads": threads, "limit_bytes": LONG_LIMIT, "lists": figures}


def memory_table(case):
    lines = ["| readouts | held beside inputs and outputs |", "|---|--:|"]
    lines += [f"| {name} | {x['extra_bytes'] / 2**20:.1f} MiB |" for name, x in case["lists"].items()]
    return "\n".join(lines)


# ------------------------------------------------------------------ the way of today


def eager(q, k, v, hidden):
    """Softmax(QKᵀ) of all heads at once, kept; written to hold no more than two N × N arrays at a time."""
    import torch

    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    weights = torch.softmax(scores.masked_fill_(hidden, -torch.inf), dim=-1)
    del scores
    out = weights @ v
    entropy = torch.special.entr(weights).sum(-1)
    top = weights.topk(8)
    return {"out": out, "entropy": entropy, "top_index": top.indices, "top_weight": top.values, "received": weights.sum(-2)}


def eager_bytes(n):
    """Two N × N arrays of every head, and the mask: the least that `eager` holds."""
    return 2 * 4 * EAGER["heads"] * n * n + n * n


def arrays_of(path):
    """The arrays of a safetensors file."""
    import numpy

    data = pathlib.Path(path).read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    types, arrays = {"F32": "<f4", "I64": "<i8"}, {}
    for name, x in json.loads(data[8:start]).items():
        if name != "__metadata__":
            first, last = x["data_offsets"]
            arrays[name] = numpy.frombuffer(data[start + first : start + last], types[x["dtype"]]).reshape(x["shape"])
    return arrays


def worker_inputs(folder, n):
    """Writes q, k and v, normal numbers of variance 1."""
    import numpy

    random, shape = numpy.random.default_rng(1), [1, EAGER["heads"], int(n), EAGER["dim"]]
    size = 4 * shape[1] * shape[2] * shape[3]
    header = {x: {"dtype": "F32", "shape": shape, "data_offsets": [at * size, (at + 1) * size]} for at, x in enumerate("qkv")}
    header = json.dumps(header).encode()
    header += b" " * (-len(header) % 8)
    with open(f"{folder}/in.safetensors", "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for _ in "qkv":
            file.write(random.standard_normal(shape, "f4").tobytes())


def worker_torch(folder, threads, seconds):
    import numpy
    import torch

    torch.set_num_threads(int(threads))
    imported = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    q, k, v = (torch.from_numpy(x.copy()) for x in map(arrays_of(f"{folder}/in.safetensors").get, "qkv"))
    n, times, start = q.shape[2], [], time.perf_counter()
    hidden = torch.ones(n, n, dtype=torch.bool).triu(1)
    with torch.inference_mode():
        eager(q[:, :, :64], k[:, :, :64], v[:, :, :64], hidden[:64, :64])
        while not times or time.perf_counter() - start < float(seconds):
            before = time.perf_counter()
            found = eager(q, k, v, hidden)
            times.append(time.perf_counter() - before)
    for name, array in found.items():
        numpy.save(f"{folder}/{name}.npy", array.numpy())
    print(json.dumps({"times": times, "imported_bytes": imported}))


def worker_compare(folder):
    """The largest difference between what glasshead wrote and what torch did."""
    import numpy

    differences, ours = {}, arrays_of(f"{folder}/out.safetensors")
    for name in ("out", "entropy", "top_weight", "received"):
        differences[name] = float(abs(ours[name] - numpy.load(f"{folder}/{name}.npy")).max())
    same = (ours["top_index"] == numpy.load(f"{folder}/top_index.npy"))[:, :, 8:]
    print(json.dumps(differences | {"top_index_equal": float(same.mean())}))


def memory_of_machine(key):
    lines = dict(line.split(":") for line in open("/proc/meminfo").read().splitlines())
    return int(lines[key].split()[0]) * 1024


def eager_case(n, threads, rounds, seconds, python):
    """torch and glasshead in turns; memory of glasshead is that of `attend` on the same file."""
    shape, total = EAGER | {"queries": n}, memory_of_machine("MemTotal")
    fits = eager_bytes(n) < total
    if fits and eager_bytes(n) + (2 << 30) > memory_of_machine("MemAvailable"):
        sys.exit(f"{n}: torch needs {eager_bytes(n) / 1e9:.1f} GB, which other programs hold now; nothing was written")
    times = {"glasshead": [], "torch": []}
    peaks = {"glasshead": [], "torch": []}
    found = {name: {"times": [], "peaks": []} for name in ("glasshead", "torch")}
    commands, imported = [], []
    with tempfile.TemporaryDirectory() as folder:
        worker = lambda verb, *rest: [python, __file__, "--worker", verb, folder, *rest]
        Process(worker("inputs", n))
        attend = [BINARY, "attend", f"{folder}/in.safetensors", "-o", f"{folder}/out.safetensors", "--causal", "bottom-right"]
        attend += ["--threads", threads, "--read", EAGER_READ]
        for _ in range(rounds):
            ours = undisturbed(lambda: [bench(shape, threads, EAGER_READ)])[0]
            whole = Process(attend)
            found["glasshead"]["times"] += [json.loads(ours.said)[key] / 1e3 for key in ("min_ms", "median_ms")]
            found["glasshead"]["peaks"].append(whole.peak)
            commands.append(whole.seconds)
            if fits:
                theirs = undisturbed(lambda: [Process(worker("torch", threads, seconds))])[0]
                answer = json.loads(theirs.said)
                found["torch"]["times"] += answer["times"]
                found["torch"]["peaks"].append(theirs.peak)
                imported.append(answer["imported_bytes"])
        differences = json.loads(Process(worker("compare")).said) if fits else None
    figures = {name: {"best_s": min(x["times"]), "median_s": statistics.median(x["times"]), "peak_bytes": max(x["peaks"])}
               for name, x in found.items() if x["times"]}
    figures["glasshead"]["attend_command_s"] = min(commands)
    if fits:
        figures["torch"]["imported_bytes"] = max(imported)
    else:
        figures["torch"] = {"does_not_fit": True}
    figures["torch"]["needs_at_least_bytes"] = eager_bytes(n)
    return shape | {"threads": threads, "machine_bytes": total, "least_peak_bytes": Process(["true"]).peak,
                    "peers": figures, "differences": differences}


def eager_table(cases):
    lines = ["| tokens | torch, time | glasshead, time | torch, peak | glasshead, peak |", "|--:|--:|--:|--:|--:|"]
    time = lambda s: f"{s * 1e3:.1f} ms" if s < 1 else f"{s:.2f} s"
    memory = lambda b: f"{b / 1e6:.0f} MB" if b < 1e9 else f"{b / 1e9:.1f} GB"
    for case in cases:
        ours, torch = (case["peers"][name] for name in ("glasshead", "torch"))
        theirs = ["–", f"more than {memory(torch['needs_at_least_bytes'])}: does not fit"]
        if "best_s" in torch:
            theirs = [time(torch["best_s"]), memory(torch["peak_bytes"])]
        cells = [f"{case['queries']:,}", theirs[0], time(ours["best_s"]), theirs[1], memory(ours["peak_bytes"])]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


# ------------------------------------------------------------------ the record


def about(python, packages=PACKAGES):
    """The machine and the versions."""
    cpu = dict(line.split(":", 1) for line in open("/proc/cpuinfo").read().split("\n\n")[0].splitlines() if ":" in line)
    cpu = {key.strip(): value.strip() for key, value in cpu.items()}
    sources = ["crates", "Cargo.toml", "Cargo.lock"]
    changed = said("git", "status", "--porcelain", "--", *sources)
    build = said("git", "log", "-1", "--format=%h", "--", *sources) + ("-dirty" if changed else "")
    record = {
        "cpu": f"{cpu.get('model name')}, family {cpu.get('cpu family')}, model {cpu.get('model')}",
        "cores": os.cpu_count(), "system": f"{platform.system()} {platform.machine()}",
        "versions": {"glasshead": build, "rustc": said("rustc", "--version")},
    }
    if python:
        ask = "import importlib.metadata as m, json, platform; " \
              f"print(json.dumps({{n: m.version(n) for n in {packages}}} | {{'python': platform.python_version()}}))"
        record["versions"] |= json.loads(said(str(python), "-c", ask))
    return record


def merged(path, now):
    """The record that is there, if it is of this machine and build, or a new one."""
    old = json.loads(path.read_text()) if path and path.exists() else {"date": datetime.date.today().isoformat()}
    for key in ("cpu", "cores"):
        if old.get(key, now[key]) != now[key]:
            sys.exit(f"{path} is of another machine: {old[key]}, not {now[key]}")
    versions = old.get("versions", {})
    for name in versions.keys() & now["versions"].keys():
        if versions[name] != now["versions"][name]:
            sys.exit(f"{path} is of {name} {versions[name]}, not {now['versions'][name]}")
    given = sys.argv[1:]
    if "--python" in given:
        at = given.index("--python")
        given[at : at + 2] = []
    commands, command = old.get("commands", {}), " ".join(["bench/readouts.py", *given])
    commands[command] = commands.get(command, 0) + 1
    notes = ["added time: `bench attention --read LIST` runs with and without the list in turns; the median of the ratios "
             "of neighbours, of that the median over rounds; and the best run with it over the best without",
             "others: the share of the CPUs that other programs and the host had meanwhile; a measurement of --eager in which "
             f"it is more than {MOST_OTHERS:.0%} is made again",
             "extra_bytes: held at the peak beside q, k, v, out and the arrays of the readouts",
             "torch is timed around its operations alone, glasshead by `bench attention`; peaks are those of whole "
             "processes (ru_maxrss), for torch with the import, for glasshead of `attend` with reading and writing files",
             "least_peak_bytes: what ru_maxrss gives for `true`, started the same way; no peak can be less",
             "torch's mask is made before its clock starts; all heads are computed at once"]
    return old | now | {"versions": versions | now["versions"], "commands": commands, "notes": notes}


def put(record, part, case, key):
    """Adds a case, in place of an older one of the same key."""
    cases = [x for x in record.get(part, []) if x[key] != case[key]] + [case]
    order = [x["name"] for x in CASES] if key == "name" else SIZES
    record[part] = sorted(cases, key=lambda x: order.index(x[key]) if x[key] in order else len(order))


def tables(record):
    parts = [("added", added_table), ("memory", memory_table), ("eager", eager_table)]
    return "\n\n".join(table(record[part]) for part, table in parts if part in record)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--added", action="store_true", help="measure the added time")
    parser.add_argument("--memory", action="store_true", help="count the extra memory")
    parser.add_argument("--eager", action="store_true", help="compare with torch")
    parser.add_argument("--only", nargs="+", metavar="TEXT", help="of --added, only cases whose name ends in one of these")
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES, metavar="N", help="of --eager, so many tokens")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, help="per process: of --added 10, of torch 1 and at least one run")
    parser.add_argument("--python", type=pathlib.Path, help="an interpreter that has torch and numpy")
    parser.add_argument("--record", type=pathlib.Path, help="write the figures here, or add them")
    parser.add_argument("--tables", type=pathlib.Path, metavar="RECORD", help="print a record, and measure nothing")
    parser.add_argument("--picture", nargs=2, type=pathlib.Path, metavar=("SVG", "RECORD"), help="draw --eager of a record")
    args = parser.parse_args()
    if args.tables:
        print(tables(json.loads(args.tables.read_text())))
    if args.picture:
        args.picture[0].write_text(picture(json.loads(args.picture[1].read_text())))
    if not (args.added or args.memory or args.eager):
        return
    if not BINARY.exists():
        parser.error("there is no target/release/glasshead: run `cargo build --release` first")
    python = (args.python or environment(HERE / ".venv", PACKAGES)) if args.eager else None
    record = merged(args.record, about(python))

    def keep(part, case, key=None):
        if key:
            put(record, part, case, key)
        else:
            record[part] = case
        if args.record:
            args.record.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")

    for case in CASES if args.added else []:
        if not args.only or any(case["name"].endswith(text) for text in args.only):
            before = next((x for x in record.get("added", []) if x["name"] == case["name"]), None)
            keep("added", added(case, args.threads, args.rounds, args.seconds or 10, before), "name")
    if args.memory:
        keep("memory", memory(args.threads))
    for n in args.sizes if args.eager else []:
        keep("eager", eager_case(n, args.threads, args.rounds, args.seconds or 1, python), "queries")
    print(tables(record))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        {"inputs": worker_inputs, "torch": worker_torch, "compare": worker_compare}[sys.argv[2]](*sys.argv[3:])
    else:
        main()
