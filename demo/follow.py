"""Following a rollout, and what the fleet knows, as an operator would: through the REST API."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from demo.story import Story
from demo.world import World


def start_rollout(world: World, release: str, *, stages: str, policy: Path, seed: str = "") -> int:
    """Register a release if it is new, start its rollout, return the rollout's number."""
    world.run("release", "add", release)
    words = ["rollout", "start", release, "--to", "ring=lab", "--stages", stages, "-o", "json"]
    words += ["--policy", str(policy), *(["--seed", seed] if seed else [])]
    return int(json.loads(world.run(*words).stdout)["rollout"]["id"])


def rollout_page(world: World, number: int) -> dict[str, Any]:
    """All about one rollout."""
    return dict(world.ask_fleet(f"rollouts/{number}"))


def follow(world: World, story: Story, number: int, *, until: set[str], timeout_s: float) -> dict[str, Any]:
    """Tell what is new of a rollout's way until it is in one of the states; return its page."""
    page: dict[str, Any] = {}

    def look() -> bool:
        nonlocal page
        page = rollout_page(world, number)
        for row in reversed(page["history"]):
            said = f"[bold]{row['action']}[/] {row['reason']}"
            if row["id"] not in story.told:
                story.told.add(row["id"])
                story.step(f"[dim]{row['actor']}:[/] {said}")
        say(progress_words(page))
        return page["rollout"]["state"] in until

    with story.going_on(f"rollout {number}") as say:
        world.wait_for(look, what=f"rollout {number} to be {' or '.join(sorted(until))}", timeout_s=timeout_s)
    return page


def progress_words(page: dict[str, Any]) -> str:
    """One line: where the rollout stands and what the evidence is."""
    rollout = page["rollout"]
    words = (
        f"{rollout['state']}, stage {rollout['stage'] + 1} of {len(rollout['stages'])}, {rollout['exposed']} devices"
    )
    verdict = rollout["verdict"]
    if verdict:
        words += f", {verdict['pairs']} pairs, {verdict['requests']} requests"
        for finding in verdict["findings"]:
            if finding["metric"] == "latency" and finding["effect"]:
                no_harm = finding["noninferior"]
                words += f", latency {finding['effect']:.2f}x, evidence of harm {finding['evidence']:.1f}"
                words += f", of no harm {no_harm:.1f}" if no_harm is not None else ""
    return words


def committed(world: World) -> dict[str, str]:
    """The release each device says it has committed."""
    devices = world.ask_fleet("devices")["items"]
    return {device["id"]: device["release"] for device in devices}


def device_page(world: World, device: str) -> dict[str, Any]:
    """All about one device."""
    return dict(world.ask_fleet(f"devices/{device}"))


def blob_bytes(world: World, device: str) -> int:
    """Bytes of model files that a device has fetched so far."""
    return sum(n for (who, path), n in world.network.bytes_by_device.items() if who == device and "blobs/" in path)
