#!/usr/bin/env python3
"""Attention side by side: glasshead, torch, onnxruntime, OpenVINO and candle-nn in one run.

    cargo build --release
    bench/attention.py --record bench/records/DATE-attention.json
    bench/attention.py --table bench/records/DATE-attention.json

The Python peers are installed into bench/.venv, candle is built in bench/candle. Every peer is a process of
its own per shape and number of threads; they take turns, round after round, and one of them runs at a time.
Figures are useful work (2 (D + Dv) operations per visible pair of query and key) as a fraction of the
multiply-add ceiling, for one query the bytes of q, k, v and out as a fraction of the read bandwidth; both
ceilings are measured by `glasshead bench attention` in the same run, on the same threads.
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

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
BINARY = ROOT / "target/release/glasshead"
PACKAGES = ["numpy", "torch", "onnx", "onnxruntime", "openvino"]
PEERS = ["glasshead", "torch", "onnxruntime", "openvino", "candle"]
SAMPLED_ROWS = 64


def filled(shape):
    """The shape with every default."""
    full = {"batch": 1, "kv_heads": shape["heads"], "keys": shape["queries"], "causal": False, "dtype": "f32"}
    return full | shape


# ------------------------------------------------------------------ workers: one peer, one shape


def repeated(array, heads):
    """Keys or values once per query head, for peers without groups."""
    import numpy

    return numpy.repeat(array, heads // array.shape[1], axis=1)


def torch_runner(shape, q, k, v, threads):
    import torch

    torch.set_num_threads(threads)
    dtype = torch.bfloat16 if shape["dtype"] == "bf16" else torch.float32
    q, k, v = (torch.from_numpy(x).to(dtype) for x in (q, k, v))
    options = {"is_causal": shape["causal"], "enable_gqa": shape["heads"] != shape["kv_heads"]}

    def run():
        with torch.inference_mode():
            return torch.nn.functional.scaled_dot_product_attention(q, k, v, **options)

    return "scaled_dot_product_attention", run, lambda: run().float().numpy()


def onnxruntime_runner(shape, q, k, v, threads):
    import numpy
    import onnx
    import onnxruntime

    if shape["dtype"] != "f32":
        raise RuntimeError("MultiHeadAttention takes no bf16 on the CPU")
    batch, heads, queries, dim = q.shape
    k, v = repeated(k, heads), repeated(v, heads)
    flat = lambda x: numpy.ascontiguousarray(x.transpose(0, 2, 1, 3).reshape(batch, x.shape[2], heads * dim))
    inputs = {"q": flat(q), "k": flat(k), "v": flat(v)}
    helper = onnx.helper
    value = lambda name, x: helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, x.shape)
    node = helper.make_node("MultiHeadAttention", ["q", "k", "v"], ["out"], domain="com.microsoft",
                            num_heads=heads, unidirectional=int(shape["causal"]))
    graph = helper.make_graph([node], "attention", [value(n, x) for n, x in inputs.items()], [value("out", inputs["q"])])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    run = lambda: session.run(None, inputs)[0]
    back = lambda: run().reshape(batch, queries, heads, dim).transpose(0, 2, 1, 3)
    return "com.microsoft.MultiHeadAttention", run, back


def openvino_runner(shape, q, k, v, threads):
    import numpy
    import openvino
    from openvino import opset13

    k, v = repeated(k, shape["heads"]), repeated(v, shape["heads"])
    bf16 = shape["dtype"] == "bf16"
    kind = openvino.Type.bf16 if bf16 else openvino.Type.f32
    parameters = [opset13.parameter(list(x.shape), kind, name=n) for n, x in zip("qkv", (q, k, v))]
    attention = opset13.scaled_dot_product_attention(*parameters, causal=shape["causal"])
    model = openvino.Model([attention], parameters, "attention")
    config = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1,
              "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32"}
    request = openvino.compile_model(model, "CPU", config).create_infer_request()

    def tensor(x):
        if not bf16:
            return openvino.Tensor(numpy.ascontiguousarray(x))
        bits = (numpy.ascontiguousarray(x).view(numpy.uint32) >> 16).astype(numpy.uint16)
        made = openvino.Tensor(kind, openvino.Shape(list(x.shape)))
        made.data.view(numpy.uint16)[...] = bits
        return made

    for at, x in enumerate((q, k, v)):
        request.set_input_tensor(at, tensor(x))
    run = lambda: request.infer(share_outputs=True)

    def out():
        run()
        data = request.get_output_tensor(0).data
        if data.dtype == numpy.float32:
            return data
        return (data.view(numpy.uint16).astype(numpy.uint32) << 16).view(numpy.float32)

    return "ScaledDotProductAttention-13", run, out


def worker(peer, shape, folder, threads):
    import numpy

    q, k, v = (numpy.load(f"{folder}/{name}.npy") for name in "qkv")
    runner = {"torch": torch_runner, "onnxruntime": onnxruntime_runner, "openvino": openvino_runner}[peer]
    operation, run, out = runner(shape, q, k, v, threads)
    run()
    print("ready", operation, flush=True)
    for line in sys.stdin:
        command, argument = line.split(maxsplit=1)
        if command == "run":
            times, start = [], time.perf_counter()
            while not times or time.perf_counter() - start < float(argument):
                before = time.perf_counter()
                run()
                times.append(time.perf_counter() - before)
            print(*times, flush=True)
        else:
            numpy.ascontiguousarray(out(), dtype="<f4").tofile(argument.strip())
            print("written", flush=True)


# ------------------------------------------------------------------ the run


class Peer:
    """A worker that takes turns with the others."""

    def __init__(self, name, shape, folder, threads):
        self.name, self.times, self.reason, self.operation = name, [], None, None
        mask = "causal" if shape["causal"] else "full"
        command = [sys.executable, __file__, "--worker", name, json.dumps(shape), folder, str(threads)]
        if name == "candle":
            command = [str(HERE / "candle/target/release/candle-peer"), folder, shape["dtype"], mask]
        threaded = {key: str(threads) for key in ("RAYON_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log,
                                        text=True, env=os.environ | threaded)
        first = self.process.stdout.readline().split()
        if first[:1] != ["ready"]:
            self.stop()
        else:
            self.operation = first[1]

    def ask(self, command):
        if self.reason:
            return None
        try:
            print(command, file=self.process.stdin, flush=True)
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            self.stop()
        return answer

    def stop(self):
        """Ends a worker that failed, and keeps the last line of what it said."""
        self.process.kill()
        self.log.seek(0)
        lines = [line.strip() for line in self.log.read().splitlines() if line.strip()]
        self.reason = lines[-1][:200] if lines else "ended without a word"

    def measure(self, seconds):
        answer = self.ask(f"run {seconds}")
        self.times += map(float, (answer or "").split())

    def error(self, shape, inputs, folder):
        import numpy

        path = f"{folder}/out"
        if self.ask(f"out {path}") is None or self.reason:
            return None
        q = inputs[0]
        return worst(inputs, numpy.fromfile(path, "<f4").reshape(q.shape), shape)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Glasshead:
    """`glasshead bench attention`, which draws its own normal inputs and checks itself against f64."""

    name, reason, operation = "glasshead", None, "bench attention"

    def __init__(self, shape, threads):
        self.times, self.answers = [], []
        self.command = [str(BINARY), "bench", "attention", "--format", "json", "--threads", str(threads)]
        for key in ("batch", "heads", "kv_heads", "queries", "keys", "dim", "dtype"):
            self.command += [f"--{key.replace('_', '-')}", str(shape[key])]
        if shape["causal"]:
            self.command += ["--causal", "bottom-right"]

    def measure(self, _):
        answer = json.loads(subprocess.run(self.command, check=True, capture_output=True, text=True).stdout)
        self.answers.append(answer)
        self.times += [answer["min_ms"] / 1e3, answer["median_ms"] / 1e3]

    def close(self):
        pass


def worst(inputs, out, shape):
    """The largest difference to f64 on rows spread over the output."""
    import numpy

    q, k, v = (x.astype("f8") for x in inputs)
    batch, heads, queries, dim = q.shape
    rows, group, largest = batch * heads * queries, heads // k.shape[1], 0.0
    for at in range(0, rows, max(1, rows // SAMPLED_ROWS)):
        b, h, i = at // (heads * queries), at // queries % heads, at % queries
        seen = i + 1 if shape["causal"] else k.shape[2]
        scores = k[b, h // group, :seen] @ q[b, h, i] / dim**0.5
        weights = numpy.exp(scores - scores.max())
        exact = weights @ v[b, h // group, :seen] / weights.sum()
        largest = max(largest, float(abs(exact - out[b, h, i]).max()))
    return largest


def measured(shape, threads, peers, rounds, seconds):
    import numpy

    random = numpy.random.default_rng(1)
    sizes = [(shape["heads"], shape["queries"]), (shape["kv_heads"], shape["keys"]), (shape["kv_heads"], shape["keys"])]
    inputs = [random.standard_normal((shape["batch"], h, n, shape["dim"]), "f4") for h, n in sizes]
    if shape["dtype"] == "bf16":
        inputs = [(x.view("u4") & 0xFFFF0000).view("f4") for x in inputs]
    visible = shape["queries"] * shape["keys"] if not shape["causal"] else shape["queries"] * (shape["queries"] + 1) // 2
    flops = 4 * shape["dim"] * visible * shape["heads"] * shape["batch"]
    width = 2 if shape["dtype"] == "bf16" else 4
    moved = width * (2 * inputs[0].size + inputs[1].size + inputs[2].size)
    with tempfile.TemporaryDirectory() as folder:
        for name, x in zip("qkv", inputs):
            numpy.save(f"{folder}/{name}.npy", x)
        running = [Glasshead(shape, threads) if n == "glasshead" else Peer(n, shape, folder, threads) for n in peers]
        errors = {p.name: p.error(shape, inputs, folder) for p in running if isinstance(p, Peer)}
        for _ in range(rounds):
            for peer in running:
                peer.measure(seconds)
        answers = next(p.answers for p in running if p.name == "glasshead")
        peak, gbps = (max(a[key] for a in answers) for key in ("peak_gflops", "read_gbps"))
        figures = {}
        for peer in running:
            peer.close()
            if peer.reason or not peer.times:
                figures[peer.name] = {"reason": peer.reason}
                continue
            best = min(peer.times)
            error = errors.get(peer.name) or max(a["max_abs_error"] for a in answers)
            figures[peer.name] = {
                "operation": peer.operation, "best_ms": best * 1e3, "median_ms": statistics.median(peer.times) * 1e3,
                "gflops": flops / best / 1e9, "fraction_of_peak": flops / best / 1e9 / peak,
                "fraction_of_bandwidth": moved / best / 1e9 / gbps, "max_abs_error": error,
            }
    return {"threads": threads, "peak_gflops": peak, "read_gbps": gbps, "isa": answers[0]["isa"], "peers": figures}


def said(*command):
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT).stdout.strip()


def about():
    """The machine and the versions."""
    from importlib.metadata import version

    cpu = dict(line.split(":", 1) for line in open("/proc/cpuinfo").read().split("\n\n")[0].splitlines() if ":" in line)
    cpu = {key.strip(): value.strip() for key, value in cpu.items()}
    features = [f for f in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if f in cpu.get("flags", "").split()]
    lock = (HERE / "candle/Cargo.lock").read_text().split("[[package]]")
    candle = next(p.split('version = "')[1].split('"')[0] for p in lock if 'name = "candle-nn"' in p)
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": f"{cpu.get('model name')}, family {cpu.get('cpu family')}, model {cpu.get('model')}",
        "cores": os.cpu_count(), "features": features, "system": f"{platform.system()} {platform.machine()}",
        "versions": {n: version(n) for n in PACKAGES} | {"python": platform.python_version(), "candle-nn": candle,
                     "rustc": said("rustc", "--version"), "glasshead": said("git", "describe", "--always", "--dirty")},
        "command": " ".join(["bench/attention.py", *sys.argv[1:]]),
        "notes": ["glasshead and the peers each draw normal inputs of variance 1",
                  "torch is given the groups of query heads; for onnxruntime and OpenVINO k and v are repeated before",
                  "onnxruntime and candle take [batch, tokens, heads, dim], the others [batch, heads, tokens, dim]"],
    }


def table(record):
    """The figures as Markdown, the best of a line in bold."""
    peers = list(record["cases"][0]["results"][0]["peers"])
    lines = [f"| {' | '.join(['case', 'of', *peers])} |", "|---|---|" + "---:|" * len(peers)]
    for case in record["cases"]:
        result = case["results"][-1]
        key = "fraction_of_bandwidth" if case["shape"]["queries"] == 1 else "fraction_of_peak"
        values = {n: p.get(key) for n, p in result["peers"].items()}
        top = max(v for v in values.values() if v is not None)
        cell = lambda v: "–" if v is None else f"**{v:.2f}**" if v == top else f"{v:.2f}"
        of = "read bandwidth" if case["shape"]["queries"] == 1 else "multiply-adds"
        lines.append(f"| {' | '.join([case['shape']['name'], of, *(cell(values[n]) for n in peers)])} |")
    return "\n".join(lines)


def environment(folder, packages):
    """An interpreter that has these packages."""
    python = folder / "bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    if subprocess.run([python, "-c", f"import {', '.join(packages)}"], capture_output=True).returncode:
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
    return python


def in_environment(folder):
    """Runs this script again with the peers installed."""
    python = environment(folder, PACKAGES)
    os.execv(python, [str(python), __file__, *sys.argv[1:]])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="TEXT", help="only shapes whose name holds one of these")
    parser.add_argument("--peers", nargs="+", default=PEERS, choices=PEERS)
    parser.add_argument("--threads", default="1,2", help="numbers of threads [default: 1,2]")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.5, help="per peer and round")
    parser.add_argument("--venv", type=pathlib.Path, default=HERE / ".venv", help="where the peers are installed")
    parser.add_argument("--record", type=pathlib.Path, help="write the figures here")
    parser.add_argument("--table", type=pathlib.Path, help="print the table of a record, and measure nothing")
    args = parser.parse_args()
    if args.table:
        print(table(json.loads(args.table.read_text())))
        return
    if "glasshead" not in args.peers:
        parser.error("glasshead measures the ceilings: it can't be left out of --peers")
    if not BINARY.exists():
        parser.error("there is no target/release/glasshead: run `cargo build --release` first")
    if pathlib.Path(sys.prefix).resolve() != args.venv.resolve():
        in_environment(args.venv)
    if "candle" in args.peers:
        subprocess.run(["cargo", "build", "--release", "--quiet"], check=True, cwd=HERE / "candle")
    record = about() | {"cases": []}
    for shape in map(filled, json.loads((HERE / "shapes.json").read_text())):
        if args.only and not any(text in shape["name"] for text in args.only):
            continue
        results = [measured(shape, int(n), args.peers, args.rounds, args.seconds) for n in args.threads.split(",")]
        record["cases"].append({"shape": shape, "results": results})
        for result in results:
            for name, figures in result["peers"].items():
                told = figures.get("reason") or "{best_ms:.3f} ms, median {median_ms:.3f}, {fraction_of_peak:.2f} of the multiply-adds, {fraction_of_bandwidth:.2f} of the bandwidth, error {max_abs_error:.1e}".format(**figures)
                print(f"{shape['name']}, {result['threads']} threads, {name}: {told}", flush=True)
        # After every shape, so that little is lost where a run is broken off.
        if args.record:
            args.record.write_text(json.dumps(record, indent=1) + "\n")
    if record["cases"]:
        print(table(record))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        worker(sys.argv[2], json.loads(sys.argv[3]), sys.argv[4], int(sys.argv[5]))
    else:
        main()
