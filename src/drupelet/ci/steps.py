"""What a release pipeline does, step by step, in commands that a person could type.

The three pipeline files differ in how they are written, and run these. Values come from the environment (`$RECIPE`,
`$VERSION`, ...), secrets too, and are quoted wherever they stand; no value is pasted into a command.
"""

from __future__ import annotations

from dataclasses import dataclass

VERDICT_S_MAX = 18_000
"""How long a job waits for the verdict: five hours, since GitHub ends a job after six. Waiting again goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signers:
    """Where the keys are that sign a release, as the key ring says it."""

    secrets: tuple[str, ...] = ()
    """Variables that hold private keys and what opens them; empty if a cloud has all keys."""
    cloud: str = ""
    """The scheme of the cloud's keys (`awskms`, `gcpkms`, `azurekms`), which a job enters as itself; empty: none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A repository's release, as far as a pipeline must know. Paths are relative to the repository's top."""

    family: str
    recipe: str
    checkpoint: str
    policy: str = ""
    """Empty: the server's defaults."""
    selector: str = ""
    """Empty: every device."""
    runtime: str = ""
    """Folder with the runtime image's Containerfile or Dockerfile; empty: no image of one's own."""
    tests: tuple[str, ...] = ()
    """The commands that run the repository's tests; empty: it has none."""
    keys: str = "keys"
    """Folder with the key ring's public files."""
    signers: Signers
    branch: str = "main"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step: its name in the pipeline, its commands, and the secrets it needs and no other step sees."""

    name: str
    commands: tuple[str, ...]
    secrets: tuple[str, ...] = ()
    cloud: bool = False
    """Whether it signs with a cloud's key, which the job enters as itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Steps that share a machine."""

    name: str
    steps: tuple[Step, ...]


def install() -> Step:
    """Return the step that installs Drupelet: there is no package on an index, so the repository says from where."""
    missing = "say what pip shall install, a wheel or a git address of Drupelet with the extra forge"
    return Step(name="Install Drupelet", commands=(f'pip install --quiet "${{DRUPELET_REQUIREMENT:?{missing}}}"',))


def jobs(plan: Plan, *, annotate: str = "") -> tuple[Job, ...]:
    """Return the jobs in order. `annotate` is added to the linter's command, to be shown as the service likes it."""
    tests = (Step(name="Unit tests", commands=plan.tests),) if plan.tests else ()
    policy = ' --policy "$POLICY"' if plan.policy else ""
    made = [
        Job(
            name="check",
            steps=(
                Step(name="Lint recipes, policies and manifests", commands=(f"drupelet lint{annotate}",)),
                *tests,
                Step(name="Read every weight of the checkpoint", commands=('drupelet forge check "$CHECKPOINT"',)),
            ),
        ),
        Job(name="runtime", steps=_image(plan)),
        Job(
            name="model",
            steps=(
                Step(
                    name="Convert, quantize and evaluate",
                    commands=(
                        'drupelet forge build "$RECIPE" --checkpoint "$CHECKPOINT" --version "$VERSION"'
                        ' --out "build/$VERSION" --cache .cache/forge',
                    ),
                ),
                Step(
                    name="Validate the package",
                    commands=('drupelet release lint "build/$VERSION"', 'drupelet release show "build/$VERSION"'),
                ),
            ),
        ),
        Job(
            name="release",
            steps=(
                *_publish(plan),
                Step(
                    name="Verify what was published, as a device would",
                    commands=(
                        'drupelet verify "$FAMILY/$VERSION" --depot "$DRUPELET_DEPOT" --root "$KEYS/image-root.json"',
                    ),
                ),
                Step(
                    name="Register the release with the fleet",
                    commands=('drupelet release add "$FAMILY/$VERSION"',),
                    secrets=("DRUPELET_TOKEN",),
                ),
                Step(
                    name="Start the staged rollout",
                    commands=(f'drupelet rollout start "$FAMILY/$VERSION" --to "$SELECTOR"{policy}',),
                    secrets=("DRUPELET_TOKEN",),
                ),
            ),
        ),
        Job(
            name="verdict",
            steps=(
                Step(
                    name="Wait for the verdict",
                    commands=(f'drupelet rollout wait "$FAMILY/$VERSION" --timeout {VERDICT_S_MAX}',),
                    secrets=("DRUPELET_TOKEN",),
                ),
            ),
        ),
    ]
    return tuple(job for job in made if job.steps)


def _image(plan: Plan) -> tuple[Step, ...]:
    if not plan.runtime:
        return ()
    build = 'docker buildx build --platform linux/amd64,linux/arm64 --tag "$IMAGE:$VERSION" --push "$RUNTIME"'
    return (Step(name="Build and push the runtime image", commands=(build,)),)


def _publish(plan: Plan) -> tuple[Step, ...]:
    publish = 'drupelet forge publish "build/$VERSION" --depot "$DRUPELET_DEPOT" --keys "$KEYS"'
    signers = plan.signers
    return (Step(name="Sign and publish", commands=(publish,), secrets=signers.secrets, cloud=bool(signers.cloud)),)
