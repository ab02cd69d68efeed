"""Who builds, as SLSA asks: the platform and the run on it, from what a CI system says in a job's environment. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

LOCAL = "urn:drupelet:builder:local"
"""Somebody's machine."""
URI_CHARACTERS_MAX = 500


@dataclass(frozen=True, slots=True)
class Builder:
    """`id` is a URI of the platform, with the project on it; `run` that of this very run, empty if nobody says."""

    id: str = LOCAL
    run: str = ""


def builder_of(environment: Mapping[str, str], *, named: str = "") -> Builder:
    """Return who builds: GitHub Actions, GitLab CI or Jenkins by their own variables, else this machine.

    `named` is whatever the user calls it instead.
    """

    def said(name: str) -> str:
        return environment.get(name, "").strip().rstrip("/")[:URI_CHARACTERS_MAX]

    github = f"{said('GITHUB_SERVER_URL')}/{said('GITHUB_REPOSITORY')}"
    for marker, builder, run in (
        ("GITHUB_ACTIONS", github, f"{github}/actions/runs/{said('GITHUB_RUN_ID')}"),
        ("GITLAB_CI", said("CI_PROJECT_URL"), said("CI_JOB_URL")),
        ("JENKINS_URL", said("JOB_URL"), said("BUILD_URL")),
    ):
        if said(marker) and "://" in builder:
            return Builder(named or builder, run)
    return Builder(named or LOCAL)
