#!/usr/bin/env python3
"""Whole scans beside transformers: time and peak memory of a model that reads, and of what it looked at.

    cargo build --release
    bench/scan.py --record bench/records/DATE-scan.json
    bench/scan.py --table bench/records/DATE-scan.json

SmolLM2-135M-Instruct (the GGUF file of the catalogue; transformers dequantises it to f32) over 4,096 and 8,192 tokens,
an answer behind 8,128 tokens, and MiniLM over 1,000 made-up sentences. glasshead is timed as a whole command, with
loading, cutting, and its files (written to memory); transformers around its forward alone. Its eager attention needs
20 GB for 4,096 tokens: with less than 22 GB free it reads 2,048. Of the sentences both sides show the best of three
runs, and glasshead's figure is without the time of a command over one sentence. Every measurement is a process of its own;
`others` is the share of the CPUs that other programs had meanwhile. torch, transformers and gguf are installed into
bench/.venv, or taken from `--python`.
"""

import argparse
import datetime
import json
import pathlib
import random
import re
import subprocess
import sys
import tempfile
import time

from attention import BINARY, HERE, environment, said
from readouts import Process, about, memory_of_machine

PACKAGES = ["numpy", "torch", "transformers", "gguf"]
READ = "entropy,max,top=8,received,segments=paragraph,blocks=64"
EAGER_NEEDS = 22 << 30
ANSWER = 64
BATCHES = (32, 64, 128)

WORDS = """the of and to in is that for it as was with be by on not he his but at are this have from or had an they
which one you were all her she there would their we him been has when who will no more if out so up said what about
than into them can only other time new some could these two may first then do any like my now over such our man even
most made after also did many off before must well back through years where much your way down should because long
each just state those people too little good world make very year still see work men between being life under three
never know last while same another""".split()


def text(tokens):
    """Paragraphs of made-up sentences, at least so many tokens long."""
    numbers, parts = random.Random(1), []
    while sum(map(len, parts)) < 6 * tokens:
        parts.append(" ".join(sentences(numbers, 6)) + "\n\n")
    return "".join(parts)


def sentences(numbers, count):
    """Four to sixty words each, most of them near eighteen."""
    lengths = [max(4, min(60, int(numbers.lognormvariate(2.9, 0.5)))) for _ in range(count)]
    return [" ".join(numbers.choice(WORDS) for _ in range(n)).capitalize() + "." for n in lengths]


# ------------------------------------------------------------------ transformers, in processes of their own


def language_model(path, attention):
    import torch
    from transformers import AutoModelForCausalLM

    path = pathlib.Path(path)
    return AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32, attn_implementation=attention
    ).eval()


def worker_cut(path, file, ids, count):
    """Cuts a text behind so many tokens."""
    from transformers import AutoTokenizer

    path, file = pathlib.Path(path), pathlib.Path(file)
    cutter = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    cut = cutter(file.read_text(), return_offsets_mapping=True)
    text = file.read_text()[: cut["offset_mapping"][int(count) - 1][1]]
    again = cutter(text)["input_ids"]
    assert len(again) == int(count), (len(again), count)
    file.write_text(text)
    pathlib.Path(ids).write_text(json.dumps(again))


def worker_read(path, ids, attention, threads):
    """Seconds of one forward; eager gives all weights of all layers and heads."""
    import torch

    torch.set_num_threads(int(threads))
    model = language_model(path, attention)
    ids = torch.tensor([json.loads(pathlib.Path(ids).read_text())])
    with torch.inference_mode():
        model.model(ids[:, :64], use_cache=False)
        start = time.perf_counter()
        out = model.model(ids, use_cache=False, output_attentions=attention == "eager")
        seconds = time.perf_counter() - start
    if attention == "eager":
        assert len(out.attentions) == model.config.num_hidden_layers
    print(json.dumps({"seconds": seconds}))


def worker_answer(path, ids, count, threads):
    """Seconds of the tokens behind the first, one at a time over the cache."""
    import torch

    torch.set_num_threads(int(threads))
    model = language_model(path, "sdpa")
    ids = torch.tensor([json.loads(pathlib.Path(ids).read_text())])
    with torch.inference_mode():
        out = model(ids, use_cache=True, logits_to_keep=1)
        for token in range(int(count)):
            out = model(out.logits[:, -1:].argmax(-1), past_key_values=out.past_key_values, logits_to_keep=1)
            if token == 0:
                start = time.perf_counter()
    print(json.dumps({"seconds": time.perf_counter() - start, "tokens": int(count) - 1}))


def worker_sentences(folder, lines, threads):
    """The fastest of several sizes of a batch: cut, sorted by length, padded, read."""
    import tokenizers
    import torch
    from transformers import AutoModel

    torch.set_num_threads(int(threads))
    cutter = tokenizers.Tokenizer.from_file(f"{folder}/tokenizer.json")
    cutter.no_padding()
    cutter.no_truncation()
    model = AutoModel.from_pretrained(folder, attn_implementation="sdpa").eval()
    lines = pathlib.Path(lines).read_text().splitlines()

    def run(size):
        start = time.perf_counter()
        ids = sorted((one.ids for one in cutter.encode_batch(lines)), key=len)
        with torch.inference_mode():
            for first in range(0, len(ids), size):
                batch = ids[first:first + size]
                longest = max(map(len, batch))
                padded = torch.tensor([one + [0] * (longest - len(one)) for one in batch])
                mask = torch.tensor([[1] * len(one) + [0] * (longest - len(one)) for one in batch])
                model(padded, attention_mask=mask)
        return time.perf_counter() - start

    run(BATCHES[0])
    seconds = {size: run(size) for size in BATCHES}
    print(json.dumps({"seconds": min(seconds.values()), "batch": min(seconds, key=seconds.get)}))


# ------------------------------------------------------------------ the cases


class Bench:
    def __init__(self, python, threads, folder):
        self.python, self.threads, self.folder = python, threads, pathlib.Path(folder)
        self.smollm2, self.minilm = said(BINARY, "models", "path", "smollm2"), said(BINARY, "models", "path", "minilm")
        if not (self.smollm2 and self.minilm):
            sys.exit("smollm2 and minilm are needed: target/release/glasshead models pull NAME")

    def glasshead(self, *args):
        """A whole command, its file written and removed."""
        out = self.folder / "out.safetensors"
        said_by = self.folder / "said"
        line = [BINARY, "scan", *args, "-o", out, "--threads", self.threads]
        command = ["sh", "-c", 'exec "$@" 2>"$0"', said_by, *line]
        process = Process(command)
        size = out.stat().st_size
        out.unlink()
        return {"seconds": process.seconds, "peak": process.peak, "others": process.others, "file": size,
                "said": said_by.read_text().strip().splitlines()}

    def transformers(self, worker, *args):
        process = Process([self.python, __file__, "--worker", worker, *args, self.threads])
        return json.loads(process.said) | {"peak": process.peak, "others": process.others}

    def text(self, count):
        """A text of so many tokens, and their ids."""
        file, ids = self.folder / f"{count}.txt", self.folder / f"{count}.json"
        file.write_text(text(count))
        subprocess.run([self.python, __file__, "--worker", "cut", self.smollm2, file, ids, str(count)], check=True)
        return file, ids


def reading(bench, count):
    """A text read by SmolLM2, every head looked at; by transformers with all weights, and without any."""
    file, ids = bench.text(count)
    ours = bench.glasshead(file, "--model", "smollm2", "--read", READ)
    assert ours["said"][0].startswith(f"{count} tokens"), ours["said"]
    case = {"name": f"SmolLM2, {count:,} tokens", "tokens": count, "read": READ, "glasshead": ours,
            "sdpa": bench.transformers("read", bench.smollm2, ids, "sdpa")}
    if count == 4096:
        enough = memory_of_machine("MemAvailable") >= EAGER_NEEDS
        eager_file, eager_ids = (file, ids) if enough else bench.text(2048)
        case["eager"] = bench.transformers("read", bench.smollm2, eager_ids, "eager") | {"tokens": count if enough else 2048}
        if not enough:
            case["glasshead_2048"] = bench.glasshead(eager_file, "--model", "smollm2", "--read", READ)
    return case


def answering(bench, count):
    file, ids = bench.text(count)
    asked = ["--model", "smollm2", "--ask", "Which words come most often?", "--answer", ANSWER, "--force-context"]
    ours = bench.glasshead(file, *asked, "--read", "entropy,top=8")
    found = re.search(r"answer: (\d+) tokens, ([\d.]+) per second", "\n".join(ours["said"]))
    theirs = bench.transformers("answer", bench.smollm2, ids, ANSWER)
    theirs["per_second"] = theirs["tokens"] / theirs["seconds"]
    if found:
        ours |= {"tokens": int(found[1]), "per_second": float(found[2])}
    return {"name": f"SmolLM2, an answer behind {count:,} tokens", "tokens": count, "glasshead": ours, "sdpa": theirs}


def many_sentences(bench, count):
    lines, one = bench.folder / "lines.txt", bench.folder / "line.txt"
    all_lines = sentences(random.Random(2), count)
    lines.write_text("\n".join(all_lines) + "\n")
    one.write_text(all_lines[0] + "\n")
    read = ["--model", "minilm", "--each", "line", "--read", "entropy,top=8"]
    # Theirs is the best of as many runs.
    best = lambda file: min((bench.glasshead(file, *read) for _ in BATCHES), key=lambda run: run["seconds"])  # noqa: E731
    ours, empty = best(lines), best(one)
    theirs = bench.transformers("sentences", bench.minilm, lines)
    ours["per_second"] = count / (ours["seconds"] - empty["seconds"])
    theirs["per_second"] = count / theirs["seconds"]
    return {"name": f"MiniLM, {count:,} sentences", "sentences": count, "read": read[-1], "glasshead": ours,
            "glasshead_one_sentence": empty, "sdpa": theirs}


def table(record):
    lines = ["| case | glasshead | | transformers SDPA, no weights | | transformers eager, all weights | |",
             "|---|--:|--:|--:|--:|--:|--:|"]  # fmt: skip
    for case in record["cases"]:
        cells = []
        for who in ("glasshead", "sdpa", "eager"):
            one = case.get(who)
            if not one:
                cells += ["–", ""]
                continue
            seconds = f"{one['per_second']:,.0f} /s" if "per_second" in one else f"{one['seconds']:.1f} s"
            seconds += f" ({one['tokens']:,})" if who == "eager" and one["tokens"] != case["tokens"] else ""
            cells += [seconds, f"{one['peak'] / 1e9:.2f} GB"]
        lines.append(f"| {case['name']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--python", type=pathlib.Path, help="an interpreter that has torch, transformers and gguf")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--record", type=pathlib.Path, help="write the figures here; cases that are there are replaced")
    parser.add_argument("--table", type=pathlib.Path, metavar="RECORD", help="print a record, and measure nothing")
    args = parser.parse_args()
    if args.table:
        print(table(json.loads(args.table.read_text())))
        return
    if not BINARY.exists():
        parser.error("there is no target/release/glasshead: run `cargo build --release` first")
    python = args.python or environment(HERE / ".venv", PACKAGES)
    record = {"date": datetime.date.today().isoformat(), **about(python, PACKAGES), "threads": args.threads,
              "command": f"bench/scan.py --threads {args.threads} --only {' '.join(args.only)}", "cases": []}
    if args.record and args.record.exists():
        before = json.loads(args.record.read_text())
        if before["versions"] != record["versions"] or before["cpu"] != record["cpu"]:
            sys.exit(f"{args.record} is of another machine or build")
        record["cases"] = before["cases"]
    memory = pathlib.Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        bench = Bench(python, str(args.threads), folder)
        for name in args.only:
            run, size = CASES[name]
            case = run(bench, size)
            record["cases"] = [old for old in record["cases"] if old["name"] != case["name"]] + [case]
            if args.record:
                args.record.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    print(table(record))


CASES = {"4096": (reading, 4096), "8192": (reading, 8192), "answer": (answering, 8064), "sentences": (many_sentences, 1000)}

if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        workers = {"cut": worker_cut, "read": worker_read, "answer": worker_answer, "sentences": worker_sentences}
        workers[sys.argv[2]](*sys.argv[3:])
    else:
        main()
