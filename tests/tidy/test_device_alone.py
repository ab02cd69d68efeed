"""A device runs the agent without one line of server code or one server dependency."""

from __future__ import annotations

import subprocess
import sys

FORBIDDEN = (
    "fastapi", "starlette", "sqlalchemy", "uvicorn", "jinja2", "plotly", "aiohttp", "xllamacpp", "numpy", "scipy",
    "gguf", "safetensors", "sentencepiece", "pydantic", "psycopg", "alembic",
    "drupelet.fleet", "drupelet.web", "drupelet.forge", "drupelet.gateway", "drupelet.gate", "drupelet.sim",
)  # fmt: skip

PROGRAM = """
import sys
forbidden = tuple(sys.argv[1].split(","))
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if any(name == f or name.startswith(f + ".") for f in forbidden):
            raise ImportError("a device must not import " + name)
sys.meta_path.insert(0, Refuse())
import drupelet.cli.main, drupelet.cli.agent, drupelet.cli.compose.agent
"""


def test_agent_imports_nothing_of_the_server() -> None:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, ",".join(FORBIDDEN)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
