"""A pipeline file from a plan, for GitHub, GitLab or Jenkins: text in, text out; the same plan, the same bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from importlib.resources import files

import jinja2

from drupelet.ci.steps import Plan, install, jobs


class Service(Enum):
    """Who runs the pipeline."""

    GITHUB = "github"
    GITLAB = "gitlab"
    JENKINS = "jenkins"

    @property
    def path(self) -> str:
        """Where its pipeline file lies in a repository."""
        return _PATHS[self]


_PATHS = {
    Service.GITHUB: ".github/workflows/model-release.yml",
    Service.GITLAB: ".gitlab-ci.yml",
    Service.JENKINS: "Jenkinsfile",
}
_TEMPLATES = {
    Service.GITHUB: "github.yml.j2",
    Service.GITLAB: "gitlab.yml.j2",
    Service.JENKINS: "Jenkinsfile.j2",
}
_GITLAB_VERSION = (
    'case "$CI_COMMIT_TAG" in v*) export VERSION="${CI_COMMIT_TAG#v}" ;; '
    '*) export VERSION="0.0.$CI_PIPELINE_IID" ;; esac'
)


_KEY = "DRUPELET_KEY_"
_MEANINGS = {"DRUPELET_PASSPHRASE": "opens these keys"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cloud:
    """How a job enters a cloud as itself: GitHub's action, and where other services put the token."""

    github: str
    github_with: dict[str, str]
    audience: str
    token_file: str
    """The variable in which the cloud's libraries look for the token's file."""
    variables: tuple[str, ...]


CLOUDS: Mapping[str, Cloud] = {
    "awskms": Cloud(
        github="aws-actions/configure-aws-credentials@v4",
        github_with={"role-to-assume": "${{ vars.AWS_ROLE_ARN }}", "aws-region": "${{ vars.AWS_REGION }}"},
        audience="sts.amazonaws.com",
        token_file="AWS_WEB_IDENTITY_TOKEN_FILE",  # noqa: S106 (a variable's name)
        variables=("AWS_ROLE_ARN, AWS_REGION  the role that may sign with the key ring's KMS keys",),
    ),
    "gcpkms": Cloud(
        github="google-github-actions/auth@v2",
        github_with={
            "workload_identity_provider": "${{ vars.GCP_WORKLOAD_IDENTITY_PROVIDER }}",
            "service_account": "${{ vars.GCP_SERVICE_ACCOUNT }}",
        },
        audience="//iam.googleapis.com/$GCP_WORKLOAD_IDENTITY_PROVIDER",
        token_file="GCP_TOKEN_FILE",  # noqa: S106
        variables=(
            "GCP_WORKLOAD_IDENTITY_PROVIDER, GCP_SERVICE_ACCOUNT  who may sign with the key ring's KMS keys",
            "GOOGLE_APPLICATION_CREDENTIALS  not on GitHub: an external_account file that names the token's file",
        ),
    ),
    "azurekms": Cloud(
        github="azure/login@v2",
        github_with={
            "client-id": "${{ vars.AZURE_CLIENT_ID }}",
            "tenant-id": "${{ vars.AZURE_TENANT_ID }}",
            "allow-no-subscriptions": "true",
        },
        audience="api://AzureADTokenExchange",
        token_file="AZURE_FEDERATED_TOKEN_FILE",  # noqa: S106
        variables=("AZURE_CLIENT_ID, AZURE_TENANT_ID  who may sign with the key ring's keys in the vault",),
    ),
}


def render(service: Service, plan: Plan) -> str:
    """Return the pipeline file. The plan's cloud is one of `CLOUDS`."""
    cloud = CLOUDS.get(plan.signers.cloud)
    return (
        _environment()
        .get_template(_TEMPLATES[service])
        .render(
            plan=plan,
            jobs=jobs(plan, annotate=" --format github" if service is Service.GITHUB else ""),
            install=install(),
            version=_GITLAB_VERSION,
            cloud=cloud,
            cloud_variables=cloud.variables if cloud else (),
        )
    )


def _environment() -> jinja2.Environment:
    made = jinja2.Environment(  # noqa: S701 (no HTML: each value goes through the filter of its language)
        loader=jinja2.FunctionLoader(lambda name: (files("drupelet.ci") / "templates" / name).read_text()),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters["quoted"] = json.dumps
    made.filters["scalar"] = scalar
    made.filters["groovy"] = lambda text: f"'{text}'"
    made.filters["credential"] = credential
    made.filters["meaning"] = meaning
    made.filters["is_key"] = is_key
    return made


def is_key(secret: str) -> bool:
    """Whether a secret is a private key: several lines, which some services take as files only."""
    return secret.startswith(_KEY)


def meaning(secret: str) -> str:
    """Return a secret's name and what it must hold, for the head of a pipeline file."""
    if is_key(secret):
        return f"{secret}  {secret.removeprefix(_KEY).lower().replace('_', '-')}.pem"
    return f"{secret}  {_MEANINGS[secret]}"


def credential(text: str) -> str:
    """Return the name that Jenkins's credentials have where others have variables: `drupelet-token`."""
    name, gap, rest = text.partition("  ")
    return name.lower().replace("_", "-") + gap + rest


def scalar(text: str) -> str:
    """Return a command as one YAML scalar: plain where YAML reads it as it stands, else in quotes."""
    special = text[0] in "\"'&*!|>%@`{}[],#?:-" or ": " in text or " #" in text or text.endswith(":")
    return json.dumps(text, ensure_ascii=False) if special else text
