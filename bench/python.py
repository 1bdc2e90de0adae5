#!/usr/bin/env python3
"""The Python package beside torch and beside the engine called from Rust, in one run.

    cargo build --release && pip install ./bindings/python torch transformers gguf accelerate
    bench/python.py shapes --record bench/records/DATE-python.json
    bench/python.py backward --record bench/records/DATE-python-backward.json
    bench/python.py model smollm2 --tokens 4096 --record bench/records/DATE-python-model.json
    bench/python.py scores smollm2 --tokens 2048 --record bench/records/DATE-python-scores.json

`shapes`: median times of one call over bench/shapes.json: `glasshead bench attention` (Rust),
glasshead.torch.scaled_dot_product_attention, and torch's own. `backward`: the gradients of q, k and v over the same
shapes of many queries, and how far they are from autograd through plain attention in float64, of the first key head.
`model`: one forward pass of a model of transformers with
its attention as sdpa, as glasshead, and as glasshead reading out entropy, the top 8 and received weight of every head;
and the peak memory of each. `scores`: what readouts add in time where scores are those of the model while it reads this
project's documentation, layer by layer, beside random ones of the same shape. Every figure is of a process of its own; they take turns, and one of them runs at a time.
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
import time

HERE = pathlib.Path(__file__).resolve().parent
BINARY = HERE.parent / "target/release/glasshead"
READ = "entropy,top=8,received"


def timed(run, seconds):
    """Median of one call, in milliseconds; at least three."""
    run()
    times, end = [], time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


# ------------------------------------------------------------------ workers


def inputs_of(peer, shape, threads):
    """q, k, v, the function and its options."""
    import torch

    import glasshead
    from glasshead.torch import scaled_dot_product_attention

    torch.set_num_threads(threads)
    glasshead.set_num_threads(threads)
    torch.manual_seed(0)
    batch, heads, queries, dim = shape.get("batch", 1), shape["heads"], shape["queries"], shape["dim"]
    kv_heads, keys = shape.get("kv_heads", heads), shape.get("keys", queries)
    dtype = torch.bfloat16 if shape.get("dtype") == "bf16" else torch.float32
    q = torch.randn(batch, heads, queries, dim).to(dtype)
    k, v = (torch.randn(batch, kv_heads, keys, dim).to(dtype) for _ in range(2))
    function = {"glasshead": scaled_dot_product_attention, "torch": torch.nn.functional.scaled_dot_product_attention}[
        peer
    ]
    options = {"is_causal": shape.get("causal", False), "enable_gqa": heads != kv_heads}
    return [q, k, v], function, options


def attention_worker(peer, shape, threads, seconds):
    import torch

    inputs, function, options = inputs_of(peer, shape, threads)
    with torch.inference_mode():
        return {"ms": timed(lambda: function(*inputs, **options), seconds)}


def backward_worker(peer, shape, threads, seconds):
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    inputs, function, options = inputs_of(peer, shape, threads)
    inputs = [x.requires_grad_() for x in inputs]
    out = function(*inputs, **options)
    grad_out = torch.randn(out.shape).to(out.dtype)
    run = lambda: torch.autograd.grad(out, inputs, grad_out, retain_graph=True)  # noqa: E731
    answer = {"ms": timed(run, seconds)}
    group = shape["heads"] // shape.get("kv_heads", shape["heads"])
    few = [x[:1, :heads].detach().double().requires_grad_() for x, heads in zip(inputs, (group, 1, 1))]
    with sdpa_kernel(SDPBackend.MATH):
        exact = torch.autograd.grad(
            torch.nn.functional.scaled_dot_product_attention(*few, **options), few, grad_out[:1, :group].double()
        )
    errors = [(x[:1, : want.shape[1]] - want).abs().max().item() for x, want in zip(run(), exact)]
    return answer | {"errors": dict(zip("qkv", errors))}


def rust(shape, threads):
    """The same shape, called from Rust."""
    command = [str(BINARY), "bench", "attention", "--threads", str(threads), "--format", "json"]
    for name in ("batch", "heads", "kv_heads", "queries", "keys", "dim", "dtype"):
        if name in shape:
            command += [f"--{name.replace('_', '-')}", str(shape[name])]
    if shape.get("causal"):
        command += ["--causal", "top-left"]
    return {"ms": json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["median_ms"]}


def model_of(name, attention):
    """A model of transformers, and its folder or file."""
    import torch
    from transformers import AutoModelForCausalLM

    path = pathlib.Path(
        subprocess.run([str(BINARY), "models", "path", name], check=True, capture_output=True, text=True).stdout.strip()
    )
    where = (
        {"pretrained_model_name_or_path": path.parent, "gguf_file": path.name}
        if path.is_file()
        else {"pretrained_model_name_or_path": path}
    )
    return AutoModelForCausalLM.from_pretrained(
        **where, dtype=torch.float32, attn_implementation=attention
    ).eval(), where


def model_worker(peer, name, tokens, threads):
    import contextlib

    import torch

    import glasshead.transformers

    torch.set_num_threads(threads)
    glasshead.set_num_threads(threads)
    glasshead.transformers.register()
    model, _ = model_of(name, peer.split()[0])
    ids = torch.randint(3, model.config.vocab_size, (1, tokens), generator=torch.Generator().manual_seed(0))
    loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    reads = peer.endswith("reading")
    times = []
    with torch.inference_mode():
        model(ids[:, :64], use_cache=False)
        for _ in range(3):
            with glasshead.capture(model, READ) if reads else contextlib.nullcontext() as seen:
                start = time.perf_counter()
                logits = model(ids, use_cache=False, logits_to_keep=1).logits
                times.append(time.perf_counter() - start)
    answer = {"s": statistics.median(times), "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6}
    answer |= {"loaded_gb": loaded, "logits": logits[0, -1, :8].tolist()}
    if reads:
        answer["entropy_of_layer_0"] = seen[0].entropy.mean().item()
    return answer


def scores_worker(name, tokens, threads):
    """Of some layers the added time of each list of readouts, in percent."""
    import torch
    from transformers import AttentionInterface, AttentionMaskInterface, AutoTokenizer

    import glasshead.transformers
    from readouts import lists

    torch.set_num_threads(threads)
    glasshead.set_num_threads(threads)
    taken = {}

    def keeping(module, query, key, value, *rest, **options):
        taken[module.layer_idx] = [x.contiguous() for x in (query, key, value)]
        return glasshead.transformers.attention_forward(module, query, key, value, *rest, **options)

    AttentionInterface.register("keeping", keeping)
    AttentionMaskInterface.register("keeping", glasshead.transformers.mask)
    model, where = model_of(name, "keeping")
    folder = where.pop("pretrained_model_name_or_path")
    root = HERE.parent
    text = "".join(
        path.read_text() for path in [root / "README.md", root / "ARCHITECTURE.md", root / "docs/recipes.md"]
    )
    ids = AutoTokenizer.from_pretrained(folder, **where)(text, return_tensors="pt").input_ids[:, :tokens]
    if ids.shape[1] < tokens:
        sys.exit(f"the documentation has {ids.shape[1]} tokens")
    with torch.inference_mode():
        model(ids, use_cache=False, logits_to_keep=1)
    last = max(taken)
    cases = {f"layer {n}": taken[n] for n in sorted({0, last // 3, 2 * last // 3, last})}
    cases["random"] = [torch.randn_like(x) for x in taken[0]]
    found = {}
    for case, (q, k, v) in cases.items():
        for dtype in (torch.float32, torch.bfloat16):
            q, k, v = (x.to(dtype) for x in (q, k, v))
            row = found.setdefault(f"{case}, {str(dtype).removeprefix('torch.')}", {})
            for what, read in lists(tokens).items():
                times = {None: [], read: []}
                for n in range(30):
                    for one in (None, read) if n % 2 else (read, None):
                        start = time.perf_counter()
                        glasshead.attention(q, k, v, causal=True, read=one)
                        times[one].append(time.perf_counter() - start)
                row[what] = 100 * (statistics.median(map(lambda a, b: a / b, times[read], times[None])) - 1)
    return {"shape": {"q": list(q.shape), "k": list(k.shape)}, "added_percent": found}


# ------------------------------------------------------------------ runs


def worker(*arguments):
    """The answer of this file in a process of its own."""
    done = subprocess.run([sys.executable, __file__, "worker", json.dumps(arguments)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def shapes(arguments):
    rows = []
    for shape in json.loads((HERE / "shapes.json").read_text()):
        found = {"rust": [], "glasshead": [], "torch": []}
        for _ in range(arguments.rounds):
            found["rust"].append(rust(shape, arguments.threads)["ms"])
            for peer in ("glasshead", "torch"):
                found[peer].append(worker("attention", peer, shape, arguments.threads, arguments.seconds)["ms"])
        row = {"shape": shape} | {peer: statistics.median(times) for peer, times in found.items()}
        rows.append(row)
        more = row["glasshead"] - row["rust"]
        print(
            f"{shape['name']:48} rust {row['rust']:9.3f} ms   python {row['glasshead']:9.3f} ms "
            f"({1e3 * more:+7.1f} µs, {100 * more / row['rust']:+5.1f} %)   torch {row['torch']:9.3f} ms",
            flush=True,
        )
    return {"rows": rows}


def backward(arguments):
    rows = []
    for shape in json.loads((HERE / "shapes.json").read_text()):
        if shape["queries"] == 1:
            continue
        found = {"glasshead": [], "torch": []}
        for _ in range(arguments.rounds):
            for peer in found:
                found[peer].append(worker("backward", peer, shape, arguments.threads, arguments.seconds))
        row = {"shape": shape}
        for peer, runs in found.items():
            row[peer] = {"ms": statistics.median(run["ms"] for run in runs), "errors": runs[0]["errors"]}
        rows.append(row)
        ours, theirs = row["glasshead"], row["torch"]
        worst = max(ours["errors"][x] / theirs["errors"][x] for x in "qkv")
        print(
            f"{shape['name']:48} python {ours['ms']:9.3f} ms   torch {theirs['ms']:9.3f} ms "
            f"({theirs['ms'] / ours['ms']:.1f} times)   error {worst:.2f} times torch's",
            flush=True,
        )
    return {"rows": rows}


def model(arguments):
    rows = {}
    for peer in ("sdpa", "glasshead", "glasshead reading"):
        rows[peer] = worker("model", peer, arguments.name, arguments.tokens, arguments.threads)
        print(
            f"{peer:18} {rows[peer]['s']:7.2f} s   peak {rows[peer]['peak_gb']:5.2f} GB (loaded {rows[peer]['loaded_gb']:.2f})",
            flush=True,
        )
    return {"model": arguments.name, "tokens": arguments.tokens, "read": READ, "rows": rows}


def scores(arguments):
    found = worker("scores", arguments.name, arguments.tokens, arguments.threads)
    for case, row in found["added_percent"].items():
        print(f"{case:20}", "   ".join(f"{what.split(',')[0]} {percent:5.1f} %" for what, percent in row.items()))
    return {"model": arguments.name, "tokens": arguments.tokens} | found


def record(arguments, found):
    import torch
    import transformers

    import glasshead

    cpu = next(
        (line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")),
        platform.machine(),
    )
    versions = {module.__name__: module.__version__ for module in (glasshead, torch, transformers)}
    head = {
        "command": " ".join(["bench/python.py", *sys.argv[1:]]), "date": datetime.date.today().isoformat(), "cpu": cpu,
        "threads": arguments.threads, "python": platform.python_version(), "versions": versions,
    }  # fmt: skip
    arguments.record.write_text(json.dumps(head | found, indent=1) + "\n")


WORKERS = {"attention": attention_worker, "backward": backward_worker, "model": model_worker, "scores": scores_worker}


def main():
    if sys.argv[1:2] == ["worker"]:
        kind, *rest = json.loads(sys.argv[2])
        print(json.dumps(WORKERS[kind](*rest)))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    of_shapes = verbs.add_parser("shapes")
    of_backward = verbs.add_parser("backward")
    for verb in (of_shapes, of_backward):
        verb.add_argument("--rounds", type=int, default=1)
        verb.add_argument("--seconds", type=float, default=0.5)
    of_model = verbs.add_parser("model")
    of_scores = verbs.add_parser("scores")
    for verb in (of_model, of_scores):
        verb.add_argument("name")
        verb.add_argument("--tokens", type=int, default=4096)
    for verb in (of_shapes, of_backward, of_model, of_scores):
        verb.add_argument("--threads", type=int, default=os.cpu_count())
        verb.add_argument("--record", type=pathlib.Path)
    arguments = parser.parse_args()
    found = {"shapes": shapes, "backward": backward, "model": model, "scores": scores}[arguments.verb](arguments)
    if arguments.record:
        record(arguments, found)


if __name__ == "__main__":
    main()
