"""Other people's tools may fail in any way: it is one line, bounded in time, and leaves nothing behind."""

from __future__ import annotations

import json
import os
from pathlib import Path

import jinja2
import pytest

from drupelet.core.names import variant_name
from drupelet.durable import DiskFull, PosixDisk
from drupelet.engine.spec import EngineAnswered, EngineUnreachable, StartFailed
from drupelet.forge.bundle import unpack, write_bundle
from drupelet.forge.checkpoint import open_checkpoint
from drupelet.forge.convert import Wanted, convert
from drupelet.forge.formats import FORMATS
from drupelet.forge.formats.port import Artifact
from drupelet.forge.formats.staging import shipped
from drupelet.forge.formats.tooled import ToolFormat
from drupelet.forge.runners import tooled
from drupelet.forge.runners.port import RunSpec
from drupelet.forge.runners.tooled import ToolRunner
from drupelet.forge.toolchain.venvs import ToolFailed, ToolMissing
from tests.fakes import fake_tools


def _write(checkpoint: Path, out: Path, bad: str = "") -> Artifact:
    script = fake_tools.convert_script(checkpoint.parent, bad)
    made = ToolFormat(name="fake-tool", quantizations=("int4",), venv=fake_tools.venv(), script=script)
    return made.write(
        open_checkpoint(checkpoint), out, quantization="int4", model_name="tiny", disk=PosixDisk(),
        progress=lambda *_: None,
    )  # fmt: skip


def test_a_tool_sees_the_checked_files_and_no_secret(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGNING_TOKEN", "s3cret")
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    (tiny / "generation_config.json").unlink(missing_ok=True)
    (tiny / "modeling_tiny.py").write_text("raise SystemExit('nobody runs this')")
    look = "assert 'SIGNING_TOKEN' not in os.environ and 'PYTHONPATH' not in os.environ, sorted(os.environ)\n"
    look += "print(sorted(p.name for p in folder.iterdir())); assert not (folder / 'modeling_tiny.py').exists()\n"
    look += "assert os.environ['HF_HUB_OFFLINE'] == '1' and os.environ['HOME'].startswith(str(folder.parent))"
    artifact = _write(tiny, tmp_path / "out" / "a.fake", look)
    unpack(artifact.path, tmp_path / "made")
    assert (tmp_path / "made" / "about.txt").read_text() == "int4"
    config = (tmp_path / "made" / "model.bin").read_bytes()
    assert b'"model_type": "llama"' in config
    (step,) = artifact.steps
    assert step.tool == "fake-tool by fake-tool 1.0"
    assert step.inputs == {"checkpoint": open_checkpoint(tiny).digest}
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.fake"]


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("raise ValueError('no such layer')", "ValueError: no such layer"),
        ("os.kill(os.getpid(), 9)", "failed"),
        ("sys.exit(0)", "made nothing"),
    ],
)
def test_a_tool_that_fails_leaves_its_log_and_the_old_file(tiny: Path, tmp_path: Path, bad: str, said: str) -> None:
    out = tmp_path / "out" / "a.fake"
    old = _write(tiny, out)
    with pytest.raises(ToolFailed, match=said):
        _write(tiny, out, bad)
    assert sorted(path.name for path in out.parent.iterdir()) == ["a.fake", "a.fake.log"]
    assert out.stat().st_size == old.size_bytes


def test_a_disk_that_fills_up_leaves_what_was_there(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out" / "a.fake"
    old = _write(tiny, out)

    def full(_disk: PosixDisk, _part: Path, _final: Path, **_: object) -> None:
        raise DiskFull("no space left")

    monkeypatch.setattr(PosixDisk, "publish", full)
    with pytest.raises(DiskFull):
        _write(tiny, out)
    assert out.stat().st_size == old.size_bytes
    assert not list(out.parent.glob(".*"))


@pytest.mark.parametrize("name", ["onnx", "litert", "openvino"])
def test_missing_tools_are_said_before_anything_is_made(
    name: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRUPELET_CACHE", str(tmp_path / "empty"))
    with pytest.raises(ToolMissing, match=f"drupelet forge toolchain build {name}"):
        FORMATS[name].write(
            open_checkpoint(tiny), tmp_path / "out" / "a", quantization=FORMATS[name].quantizations[0],
            model_name="tiny", disk=PosixDisk(), progress=lambda *_: None,
        )  # fmt: skip
    assert not (tmp_path / "out").exists()


def test_missing_tools_are_said_before_another_variant_is_made(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRUPELET_CACHE", str(tmp_path / "empty"))
    wanted = [
        Wanted(name=variant_name("q8"), quantization="q8_0"),
        Wanted(name=variant_name("ir"), quantization="int8", file_format="openvino"),
    ]
    with pytest.raises(ToolMissing, match="drupelet forge toolchain build openvino"):
        convert(open_checkpoint(tiny), wanted, tmp_path / "out", model_name="tiny", disk=PosixDisk())
    assert not (tmp_path / "out").exists()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "graph").write_bytes(b"x")
    path = tmp_path / "bundles" / "model.fake"
    path.parent.mkdir()
    with path.open("wb") as out:
        write_bundle(folder, lambda data: out.write(data) and None)
    return path


def _runner(folder: Path, **bad: str) -> ToolRunner:
    script = fake_tools.run_script(folder, **bad)
    return ToolRunner(file_format="fake-tool", venv=fake_tools.venv(), script=script, runtime="fake-tool")


def _spec(model: Path) -> RunSpec:
    return RunSpec(model=model, alias="tiny", context_tokens=64)


def test_a_session_ends_with_its_block(model: Path, tmp_path: Path, runtime_folder: Path) -> None:
    runner = _runner(tmp_path)
    assert runner.tool == "fake-tool 1.0"
    with runner.start(_spec(model), runtime_folder=runtime_folder) as session:
        assert session.tokenize("abc") == [1, 2, 3]
        assert session.memory_bytes_peak() > 1 << 20
        assert len(list(model.parent.iterdir())) == 2
    assert [path.name for path in model.parent.iterdir()] == [model.name]
    session.close()


@pytest.mark.parametrize(
    ("bad_start", "said"),
    [
        ("raise ValueError('an unknown operator')", "an unknown operator"),
        ("print('not json', flush=True)", "no JSON"),
        ("print('[]', flush=True)", "no object"),
        ("import time; time.sleep(60)", "says nothing for 300 ms"),
        ("sys.stdout.write('x' * 3_000_000); sys.stdout.flush()", "more than 1000000 bytes"),
    ],
)
def test_what_does_not_start_says_why_and_leaves_nothing(
    model: Path, tmp_path: Path, runtime_folder: Path, monkeypatch: pytest.MonkeyPatch, bad_start: str, said: str
) -> None:
    monkeypatch.setattr(tooled, "LINE_BYTES_MAX", 1_000_000)
    if "sleep" in bad_start:
        monkeypatch.setattr(tooled, "START_MS_MAX", 300)
    with pytest.raises(StartFailed, match=said):
        _runner(tmp_path, bad_start=bad_start).start(_spec(model), runtime_folder=runtime_folder)
    assert [path.name for path in model.parent.iterdir()] == [model.name]


@pytest.mark.parametrize(
    ("bad_answer", "kind", "said"),
    [
        ("sys.exit('out of memory: cannot go on')", EngineUnreachable, "cannot go on"),
        ("import time; time.sleep(60)", EngineUnreachable, "says nothing for 300 ms"),
        (
            "print(json.dumps({'error': 'too long', 'kind': 'exceed_context_size_error'}), flush=True)",
            EngineAnswered,
            "too long",
        ),
    ],
)
def test_what_does_not_answer_says_why(
    model: Path, tmp_path: Path, runtime_folder: Path, monkeypatch: pytest.MonkeyPatch, bad_answer: str, kind: type,
    said: str,
) -> None:  # fmt: skip
    if "sleep" in bad_answer:
        monkeypatch.setattr(tooled, "ANSWER_MS_MAX", 300)
        monkeypatch.setattr(tooled, "STOP_MS_MAX", 300)
    with (
        _runner(tmp_path, bad_answer=bad_answer).start(_spec(model), runtime_folder=runtime_folder) as session,
        pytest.raises(kind, match=said),
    ):
        session.tokenize("abc")
    assert [path.name for path in model.parent.iterdir()] == [model.name]


def test_a_runtime_that_gives_no_logits_does_not_run(model: Path, tmp_path: Path) -> None:
    bad = "sys.exit('no such output: logits')"
    with pytest.raises(StartFailed, match="no such output"):
        _runner(tmp_path, bad_answer=bad).logits(_spec(model), [[1, 2]], tmp_path / "out")


def test_a_staged_checkpoint_is_what_its_digest_covers(tiny: Path, tmp_path: Path) -> None:
    artifact = _write(tiny, tmp_path / "a.fake")
    unpack(artifact.path, tmp_path / "made")
    text = (tmp_path / "made" / "model.bin").read_bytes()
    assert json.loads(text[: text.rindex(b"}\n") + 2])["architectures"] == ["LlamaForCausalLM"]
    assert os.path.realpath(tiny) not in text.decode("latin-1")


SYSTEM, USER = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}
NO_SYSTEM = "{% for m in messages %}{% if m['role'] == 'user' %}[{{ m['content'] | trim }}]{% endif %}{% endfor %}"
RAISES = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('none') }}{% endif %}" + NO_SYSTEM
TAKES = "{% for m in messages %}({{ m['role'] }}: {{ m['content'] }}){% endfor %}"


@pytest.mark.parametrize(
    ("template", "parts", "expected"),
    [
        (NO_SYSTEM, False, "[Be brief.\nHi]"),
        (RAISES, False, "[Be brief.\nHi]"),
        (TAKES, False, "(system: Be brief.)(user: Hi)"),
        (NO_SYSTEM, True, "[Be brief.\nHi]"),
        (TAKES, True, "(system: Be brief.)(user: Hi)"),
    ],
)
def test_a_shipped_template_loses_no_message(template: str, parts: bool, expected: str) -> None:
    messages = [SYSTEM, USER]
    if parts:
        messages = [{**one, "content": [{"type": "text", "text": one["content"]}]} for one in messages]
    made = jinja2.Environment(autoescape=True).from_string(shipped(template, parts=parts))
    assert made.render(messages=messages, raise_exception=lambda words: 1 / 0) == expected
    if template is TAKES and not parts:
        assert shipped(template, parts=parts) == template
