#!/usr/bin/env python3
"""How time and traffic of glasshead.ray.attention grow with workers and length: machines simulated on this one.

    pip install ./bindings/python 'ray[data]'
    bench/workers.py --record bench/records/DATE-workers.json      # two minutes on two cores
    bench/workers.py --table bench/records/DATE-workers.json

Every worker is a node of Ray with a process, an object store and one CPU of its own; the driver's node has none, so
all that a worker gets or gives goes over. The keys of one sequence lie on the workers in even parts, where they are
made.

- `slowest`: the part that takes longest, both passes, each part alone on this machine: what a cluster waits for.
- `merge`: shares and merge at the driver.
- `call`: a whole call here, where all workers share the cores of this machine.
- `bytes`: the arrays that go over, counted: q once to each worker; output, lse and readouts of each part back; the
  shares to it and the sums back. `gathered` are those that would go over if all keys and values came to the driver.
- `loopback`: what the kernel counted on the loopback interface during a call, the protocols of Ray and whatever
  else this machine did included.
"""

import argparse
import datetime
import json
import pathlib
import platform
import statistics
import sys
import time

WORKERS = [1, 2, 4]
LENGTHS = [8192, 32768, 131072]
SHAPE = {"heads": 8, "kv_heads": 2, "queries": 512, "dim": 64}
READ = "entropy,top=8,received"
OPTIONS = {"causal": "bottom-right"}


def cpu():
    names = [line for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return names[0].partition(":")[2].strip() if names else platform.processor()


def loopback():
    """Bytes sent over the loopback interface since this machine started."""
    lines = pathlib.Path("/proc/net/dev").read_text().splitlines()
    line = next(line for line in lines if line.strip().startswith("lo:"))
    return int(line.split()[9])


def bytes_of(arrays):
    return sum(array.nbytes for array in arrays)


def cluster():
    import ray
    from ray.cluster_utils import Cluster

    machines = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 512 << 20})
    nodes = [machines.add_node(num_cpus=1, object_store_memory=512 << 20).node_id for _ in range(max(WORKERS))]
    ray.init(address=machines.address, log_to_driver=False)
    return machines, nodes


def measure(nodes, length, rounds):
    """One length on so many workers."""
    import numpy as np
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

    import glasshead
    import glasshead.ray

    heads, kv_heads, queries, dim = SHAPE.values()
    per_part = length // len(nodes)

    @ray.remote(num_cpus=0)
    def keys(seed):
        random = np.random.default_rng(seed)
        return random.standard_normal((1, kv_heads, per_part, dim), np.float32)

    @ray.remote(num_cpus=1)
    def alone(q, k, v, at, shares):
        """Seconds of a pass over a part, and its answer."""
        glasshead.set_num_threads(1)
        one = {"first_key": at * per_part, "keys": length, "read": READ, "shares": shares, **OPTIONS}
        times = []
        for _ in range(rounds):
            start = time.perf_counter()
            seen = glasshead.partial_attention(q, k, v, **one)
            times.append(time.perf_counter() - start)
        return min(times), seen

    def here(at):
        return On(nodes[at], soft=False)

    k_parts = [keys.options(scheduling_strategy=here(at)).remote(2 * at) for at in range(len(nodes))]
    v_parts = [keys.options(scheduling_strategy=here(at)).remote(2 * at + 1) for at in range(len(nodes))]
    ray.wait(k_parts + v_parts, num_returns=2 * len(nodes), fetch_local=False)
    q = np.random.default_rng(99).standard_normal((1, heads, queries, dim), np.float32)
    query = ray.put(q)

    def passes(shares):
        # One after the other: they share the cores of this machine.
        return [
            ray.get(alone.options(scheduling_strategy=here(at)).remote(query, k_parts[at], v_parts[at], at, shares[at]))
            for at in range(len(nodes))
        ]

    first = passes([None] * len(nodes))
    parts = [seen for _, seen in first]
    start = time.perf_counter()
    shares = glasshead.part_shares(parts, READ)
    shared = time.perf_counter() - start
    second = passes(shares)
    sums = [dict(seen) for _, seen in second]
    start = time.perf_counter()
    glasshead.merge(parts, READ, sums)
    merged = shared + time.perf_counter() - start

    calls, over = [], []
    for _ in range(rounds + 1):
        before, start = loopback(), time.perf_counter()
        # A fresh q: the object stores keep what they have got.
        glasshead.ray.attention(q, k_parts, v_parts, READ, **OPTIONS)
        calls.append(time.perf_counter() - start)
        over.append(loopback() - before)
    to = len(nodes) * q.nbytes + bytes_of(shares)
    back = sum(bytes_of(part.arrays().values()) for part in parts) + sum(bytes_of(one.values()) for one in sums)
    return {
        "workers": len(nodes),
        "keys": length,
        "slowest_ms": 1e3 * max(a + b for (a, _), (b, _) in zip(first, second, strict=True)),
        "merge_ms": 1e3 * merged,
        # The first call starts the processes of the workers.
        "call_ms": 1e3 * min(calls[1:]),
        "bytes_to_workers": to,
        "bytes_back": back,
        "loopback_bytes": statistics.median(over[1:]),
        "gathered_bytes": 2 * kv_heads * length * dim * 4,
    }


def table(record):
    shape = record["shape"]
    print(f"{shape['queries']} queries, {shape['heads']} heads over {shape['kv_heads']}, d {shape['dim']}, "
          f"read {record['read']}\n")  # fmt: skip
    print(
        "| keys | workers | slowest part | merge | call here | over the network | by the kernel's count | all k and v |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for row in record["rows"]:
        sent = (row["bytes_to_workers"] + row["bytes_back"]) / 1e6
        print(
            f"| {row['keys']:,} | {row['workers']} | {row['slowest_ms']:.0f} ms | {row['merge_ms']:.0f} ms | "
            f"{row['call_ms']:.0f} ms | {sent:.1f} MB | {row['loopback_bytes'] / 1e6:.1f} MB | "
            f"{row['gathered_bytes'] / 1e6:.1f} MB |"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", type=pathlib.Path, help="where to write the record")
    parser.add_argument("--table", type=pathlib.Path, help="print a record as a table, and measure nothing")
    parser.add_argument("--rounds", type=int, default=3, help="calls of which the best counts")
    arguments = parser.parse_args()
    if arguments.table:
        table(json.loads(arguments.table.read_text()))
        return
    import ray

    import glasshead

    machines, nodes = cluster()
    try:
        rows = []
        for length in LENGTHS:
            for workers in WORKERS:
                rows.append(measure(nodes[:workers], length, arguments.rounds))
                print(json.dumps(rows[-1]), file=sys.stderr)
    finally:
        ray.shutdown()
        machines.shutdown()
    record = {
        "command": "bench/workers.py " + " ".join(sys.argv[1:]),
        "date": datetime.date.today().isoformat(),
        "cpu": cpu(),
        "python": platform.python_version(),
        "versions": {"glasshead": glasshead.__version__, "ray": ray.__version__},
        "shape": SHAPE,
        "read": READ,
        "rows": rows,
    }
    if arguments.record:
        arguments.record.write_text(json.dumps(record, indent=1) + "\n")
    table(record)


if __name__ == "__main__":
    main()
