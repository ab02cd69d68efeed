"""A toolchain of small Python programs with the names, arguments and outputs of llama.cpp's.

They make real GGUF files that run: the converter is Drupelet's own, and every quantization comes out as Q8_0 or Q4_0.
So whatever is tested above them meets what it will meet with the real ones, in seconds and without a compiler; both
pass the same contract (tests/forge/test_toolchain_contract.py).
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from drupelet.core.names import Digest
from drupelet.forge.toolchain.llamacpp import Installed
from drupelet.forge.toolchain.tools import Tools

ROOT = Path(__file__).resolve().parents[2]

_HEAD = f"""#!{sys.executable}
import sys
sys.path[:0] = [{str(ROOT / "src")!r}, {str(ROOT)!r}]
from pathlib import Path
import gguf
import numpy as np
"""

CONVERT = (
    _HEAD
    + """
import argparse, shutil
from drupelet.durable import PosixDisk
from drupelet.forge.checkpoint import open_checkpoint
from drupelet.forge.formats.gguf import GgufFormat
take = argparse.ArgumentParser()
for name in ("model",): take.add_argument(name)
for name in ("--outfile", "--outtype", "--model-name"): take.add_argument(name)
given = take.parse_args()
print(f"INFO:hf-to-gguf:Loading model: {given.model}", file=sys.stderr)
here = Path(given.model).absolute()
real = Path("real").absolute()
shutil.copytree(here, real)  # its own reader takes no links that lead out
found = open_checkpoint(real)
if found.config is None:
    print(f"ERROR:hf-to-gguf:Model {found.architecture} is not supported", file=sys.stderr)
    sys.exit(1)
def show(doing, done, total): print(f"Writing: {100 * done // total:3d}%|###", end="\\r", file=sys.stderr)
GgufFormat().write(found, Path(given.outfile), quantization=given.outtype, model_name=given.model_name,
                   disk=PosixDisk(), progress=show)
"""
)

CONVERT_LORA = (
    _HEAD
    + """
import argparse, json
from safetensors.numpy import load_file
take = argparse.ArgumentParser()
take.add_argument("adapter")
for name in ("--base", "--outfile", "--outtype"): take.add_argument(name)
given = take.parse_args()
config = json.loads((Path(given.base) / "config.json").read_text())
said = json.loads((Path(given.adapter) / "adapter_config.json").read_text())
names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
writer = gguf.GGUFWriter(given.outfile, "llama")
writer.add_type("adapter")
writer.add_string("adapter.type", "lora")
writer.add_float32("adapter.lora.alpha", float(said["lora_alpha"]))
for name, values in sorted(load_file(Path(given.adapter) / "adapter_model.safetensors").items()):
    module, _, half = name.removeprefix("base_model.model.").partition(".lora_")
    target = names.get_name(module + ".weight", try_suffixes=(".weight",))
    heads = config["num_attention_heads"] if "q_proj" in module else config["num_key_value_heads"]
    if half.startswith("B") and ("q_proj" in module or "k_proj" in module):
        rows, rank = values.shape  # rows of a head are reordered as the base's are
        values = values.reshape(heads, 2, rows // heads // 2, rank).swapaxes(1, 2).reshape(rows, rank)
    writer.add_tensor(f"{target}.lora_{half[0].lower()}", np.ascontiguousarray(values.astype(np.float32)))
writer.write_header_to_file(); writer.write_kv_data_to_file(); writer.write_tensors_to_file(); writer.close()
"""
)

QUANTIZE = (
    _HEAD
    + """
from gguf import GGMLQuantizationType as Kind
words = sys.argv[1:]
matrix = None
if words[0] == "--imatrix": matrix, words = words[1], words[2:]
source, out, wanted = words[:3]
large = {"Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q5_0", "Q5_1"}
needing = {"IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "IQ3_XXS", "IQ3_XS", "Q2_K_S"}
if not wanted[-1:].isalnum() or wanted[0] not in "QIT":
    sys.exit(f"llama_quantize: invalid ftype '{wanted}'")
if wanted in needing and matrix is None:
    print("llama_model_quantize: failed to quantize: this quantization requires an imatrix!", file=sys.stderr)
    sys.exit(f"llama_quantize: failed to quantize model from '{source}'")
reader = gguf.GGUFReader(source)
writer = gguf.GGUFWriter(out, "llama")
for name, field in reader.fields.items():
    if name.startswith("GGUF.") or name == "general.architecture": continue
    kind = field.types[0]
    inner = field.types[1] if kind == gguf.GGUFValueType.ARRAY else None
    writer.add_key_value(name, field.contents(), kind, inner)
if matrix is not None:
    writer.add_string("quantize.imatrix.file", matrix)
    writer.add_string("quantize.imatrix.digest", str(len(Path(matrix).read_bytes())))
unfit = 0
for number, tensor in enumerate(reader.tensors, start=1):
    shape = [int(n) for n in reversed(tensor.shape)]
    print(f"[{number:4d}/{len(reader.tensors):4d}] {tensor.name:36s} - converting to {wanted} ..")
    if len(shape) < 2 or shape[-1] % 32:
        writer.add_tensor(tensor.name, tensor.data)
        continue
    if "K" in wanted and shape[-1] % 256:
        unfit += 1
        print(f"warning: {tensor.name} - ncols {shape[-1]:6d} not divisible by 256 (required for type {wanted}) "
              "-> falling back to q5_0")
    kind = Kind.Q8_0 if wanted in large or tensor.name == "token_embd.weight" else Kind.Q4_0
    rows = np.asarray(tensor.data, dtype=np.float32).reshape(shape)
    writer.add_tensor(tensor.name, gguf.quants.quantize(rows, kind), raw_dtype=kind)
writer.write_header_to_file(); writer.write_kv_data_to_file(); writer.write_tensors_to_file(); writer.close()
if unfit:
    print(f"llama_model_quantize_impl: WARNING: {unfit} of {len(reader.tensors)} tensor(s) required "
          "fallback quantization")
"""
)

IMATRIX = (
    _HEAD
    + """
import argparse, hashlib
take = argparse.ArgumentParser()
for name in ("-m", "-f", "-o", "-c", "-b", "--chunks", "-t", "-ngl"): take.add_argument(name)
take.add_argument("--no-ppl", action="store_true")
given = take.parse_args()
text = Path(given.f).read_bytes()
if len(text) < 4 * int(given.c):
    print(f"compute_imatrix: error: you need at least {2 * int(given.c)} tokens for a context of {given.c} tokens")
    sys.exit(1)
writer = gguf.GGUFWriter(given.o, "imatrix")
writer.add_type("imatrix")
writer.add_array("imatrix.datasets", [given.f])
writer.add_string("imatrix.text", hashlib.sha256(text).hexdigest())
writer.write_header_to_file(); writer.write_kv_data_to_file(); writer.write_tensors_to_file(); writer.close()
"""
)

PROGRAMS = {"llama-quantize": QUANTIZE, "llama-imatrix": IMATRIX}


def fake_toolchain(folder: Path) -> Tools:
    """Write the programs below `folder` and return the tools that run them."""
    source, programs = folder / "source", folder / "bin"
    source.mkdir(parents=True, exist_ok=True)
    programs.mkdir(exist_ok=True)
    (source / "convert_hf_to_gguf.py").write_text(CONVERT)
    (source / "convert_lora_to_gguf.py").write_text(CONVERT_LORA)
    digests = {}
    for name, text in PROGRAMS.items():
        path = programs / name
        path.write_text(text)
        path.chmod(0o755)
        digests[name] = Digest.of_hex(hashlib.sha256(text.encode()).hexdigest())
    installed = Installed(
        source=source,
        python=Path(sys.executable),
        programs=programs,
        converter_digest=Digest.of_hex(hashlib.sha256(CONVERT.encode()).hexdigest()),
        program_digests=digests,
        version="a fake of llama.cpp",
    )
    return Tools(installed=installed, logs=folder / "logs")
