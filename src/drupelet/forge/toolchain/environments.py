"""The environments that formats other than GGUF are made with and run in, one a format.

What each asks for by name is here; what pip resolved from it lies beside, in `pins/`, so that the same tools come
tomorrow. torch is left to the build that pip finds for this machine: the one for processors alone is a tenth of the
size, and does here (see docs/formats/model-files.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources

from drupelet.forge.toolchain.venvs import ToolVenv

TORCH = "torch==2.13.0"


def _pins(name: str) -> tuple[str, ...]:
    lines = (resources.files(__package__) / "pins" / f"{name}.txt").read_text().splitlines()
    return tuple(line.strip() for line in lines if line.strip())


ONNX = ToolVenv(
    name="onnx",
    says="makes and runs ONNX Runtime GenAI folders",
    requirements=(
        "onnx==1.23.2",
        "onnx-ir==1.1.0",
        "onnxruntime==1.32.0",
        "onnxruntime-genai==0.18.0",
        "protobuf==7.36.2",
        "sentencepiece==0.2.3",
        TORCH,
        "transformers==5.24.0",
    ),
    pins=_pins("onnx"),
)

LITERT = ToolVenv(
    name="litert",
    says="makes and runs LiteRT-LM files",
    requirements=(
        "litert-lm-api==0.18.1",
        "litert-torch==0.10.0",
        "protobuf==7.36.2",
        "sentencepiece==0.2.3",
        TORCH,
        "transformers==5.24.0",
    ),
    pins=_pins("litert"),
)

OPENVINO = ToolVenv(
    name="openvino",
    says="makes and runs OpenVINO IR",
    requirements=(
        "nncf==3.4.0",
        "openvino==2026.4.1",
        "openvino-genai==2026.4.1.0",
        "openvino-tokenizers==2026.4.1.0",
        "optimum-intel==2.2.0",
        "protobuf==7.36.2",
        "sentencepiece==0.2.3",
        TORCH,
        "transformers==5.5.4",
    ),
    pins=_pins("openvino"),
)

ENVIRONMENTS: Mapping[str, ToolVenv] = {venv.name: venv for venv in (ONNX, LITERT, OPENVINO)}
"""Name -> environment."""
