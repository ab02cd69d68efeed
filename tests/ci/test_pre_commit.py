"""The hook that other repositories name in their `.pre-commit-config.yaml`."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from drupelet.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
HOOKS = ROOT / ".pre-commit-hooks.yaml"


def test_pre_commit_takes_the_hook_file() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pre_commit", "validate-manifest", str(HOOKS)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_hooks_command_fails_on_a_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (hook,) = yaml.safe_load(HOOKS.read_text())
    words = shlex.split(hook["entry"])
    assert words[0] == "drupelet"
    (tmp_path / "policy.toml").write_text("fresh_s = 1\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(words[1:])
    assert ended.value.code == 2
    assert capsys.readouterr().out.startswith("policy.toml:1:1: error: unknown key 'fresh_s'")
