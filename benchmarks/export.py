"""The memory and the seconds of an export, file to file: a folder as large as asked for is made,
sparse but for the matrices that are edited, and exported in a process that may not have more memory
than the limit.

python benchmarks/export.py --gigabytes 6 --limit 1
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from common import machine
from transformers import LlamaConfig, LlamaForCausalLM

from eckart.demo import MODEL

EXPORT = """
import json, resource, sys, time
import torch
from eckart.exports.dense import export
source, target, limit = sys.argv[1], sys.argv[2], int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
torch.set_num_threads(1)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before, start = peak(), time.perf_counter()
export(source, target, edits=["1:mlp:0.5"])
print(json.dumps({"before": before, "peak": peak(), "seconds": time.perf_counter() - start}))
"""
SHARD = 2_000_000_000


def make(folder: Path, size: int, hidden: int) -> int:
    """Write a Llama of random matrices in layer 1 and zeros elsewhere, which take no disk; return
    its bytes."""
    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 64,
        vocab_size=512,
        dtype="bfloat16",
    )
    layer = 2 * hidden * hidden * (4 + 3 * 4)
    config.num_hidden_layers = max(2, round(size / layer))
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    config.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((MODEL / name).read_bytes())
    groups: list[dict[str, torch.Tensor]] = [{}]
    held = 0
    for name, tensor in model.state_dict().items():
        if held + 2 * tensor.numel() > SHARD:
            groups.append({})
            held = 0
        groups[-1][name] = tensor
        held += 2 * tensor.numel()
    index = {}
    for number, group in enumerate(groups):
        file = f"model-{number + 1:05}-of-{len(groups):05}.safetensors"
        write_sparse(folder / file, group)
        index |= dict.fromkeys(group, file)
    total = sum((folder / file).stat().st_size for file in set(index.values()))
    about = {"metadata": {"total_size": total}, "weight_map": index}
    (folder / "model.safetensors.index.json").write_text(json.dumps(about))
    return total


def write_sparse(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Write bfloat16 tensors of a safetensors file; those of layer 1 are random."""
    header, end = {}, 0
    for name, tensor in tensors.items():
        size = 2 * tensor.numel()
        place = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [end, end + size]}
        header[name], end = place, end + size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, tensor in tensors.items():
            if ".1.mlp" in name:
                file.seek(8 + len(text) + header[name]["data_offsets"][0])
                numbers = torch.randn(tensor.shape).to(torch.bfloat16)
                file.write(numbers.view(torch.int16).numpy().tobytes())
        file.truncate(8 + len(text) + end)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=6)
    parser.add_argument("--limit", type=float, default=1, help="in GB, of data that is no file's")
    parser.add_argument("--hidden", type=int, default=2048)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        source, target = Path(scratch) / "source", Path(scratch) / "target"
        source.mkdir()
        size = make(source, round(options.gigabytes * 1e9), options.hidden)
        ended = subprocess.run(
            [sys.executable, "-c", EXPORT, source, target, str(round(options.limit * 1e9))],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        found = json.loads(ended.stdout.splitlines()[-1])
        print(machine())
        matrix = 4 * options.hidden**2
        print(
            f"{size / 1e9:.2f} GB in {len(list(source.glob('*.safetensors')))} files, edited:"
            f" 3 matrices of {matrix:,} numbers; at most {options.limit:g} GB of data allowed"
        )
        print(
            f"peak memory {found['peak'] / 1e6:,.0f} MB, of which {found['before'] / 1e6:,.0f} MB"
            f" before the export; {found['seconds']:.0f} s"
        )


if __name__ == "__main__":
    main()
