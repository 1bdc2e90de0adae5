#!/usr/bin/env python3
"""Makes the goldens that `glasshead verify` compares with, one file per model of the catalogue.

    bench/goldens/catalogue.py minilm FOLDER
    bench/goldens/catalogue.py smollm2 FILE.gguf

FOLDER or FILE is what `glasshead models path NAME` prints. Needs torch, transformers, safetensors and, for a
GGUF file, gguf. Writes crates/glasshead/src/weights/goldens/NAME.safetensors.

The model runs twice by Hugging Face transformers, eager attention: in float32 (the golden) and in float64.
The largest difference of the two is what plain float32 is off by; it is written down beside the golden, and the
tolerance of `verify` is derived from it.

Arrays: `ids I64 [tokens]`; `pairs I64 [n, 2]` (layer, head) and `attention F32 [n, tokens, tokens]`, their weights;
`hidden_tokens I64 [m]` and `last_hidden F32 [m, hidden]`, the last hidden state of some tokens.
"""

import hashlib
import json
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoModel, AutoTokenizer

TEXT = (
    "The lock keeper wrote every boat into his book: name, length, hour. On the ninth of May he wrote "
    "“Änne, 11.4 m, 6:20” and, for the first time in years, nothing after it."
)
GOLDENS = Path(__file__).resolve().parents[2] / "crates/glasshead/src/weights/goldens"


def load(source, dtype):
    """Tokenizer, model and weights file of a folder or a GGUF file."""
    where = {"pretrained_model_name_or_path": source}
    weights = source / "model.safetensors"
    if source.is_file():
        where = {"pretrained_model_name_or_path": source.parent, "gguf_file": source.name}
        weights = source
    tokenizer = AutoTokenizer.from_pretrained(**where)
    model = AutoModel.from_pretrained(**where, attn_implementation="eager", dtype=torch.float32)
    return tokenizer, model.to(dtype).eval(), weights


@torch.inference_mode()
def run(model, ids):
    out = model(ids, output_attentions=True)
    return torch.stack(out.attentions)[:, 0], out.last_hidden_state[0]


def main(name, source):
    tokenizer, model, weights = load(Path(source), torch.float32)
    ids = tokenizer(TEXT, return_tensors="pt")["input_ids"]
    attention, hidden = run(model, ids)
    exact_attention, exact_hidden = run(model.to(torch.float64), ids)
    layers, heads, tokens, _ = attention.shape
    picks = sorted({(layer, (3 * layer + 1) % heads) for layer in range(0, layers, max(1, layers // 5))} | {(layers - 1, heads - 1)})
    some = sorted({0, tokens // 3, tokens - 1})
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    arrays = {
        "ids": ids[0].to(torch.int64),
        "pairs": torch.tensor(picks, dtype=torch.int64),
        "attention": torch.stack([attention[pair] for pair in picks]).contiguous(),
        "hidden_tokens": torch.tensor(some, dtype=torch.int64),
        "last_hidden": hidden[some].contiguous(),
    }
    metadata = {
        "model": name,
        "sha256": digest,
        "text": TEXT,
        "attention_noise": repr(float((attention.double() - exact_attention).abs().max())),
        "hidden_noise": repr(float((hidden.double() - exact_hidden).abs().max())),
        "made_by": f"bench/goldens/catalogue.py, transformers {transformers.__version__}, torch {torch.__version__}, eager, float32",
    }
    GOLDENS.mkdir(exist_ok=True)
    save_file(arrays, GOLDENS / f"{name}.safetensors", metadata)
    print(json.dumps(metadata, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
