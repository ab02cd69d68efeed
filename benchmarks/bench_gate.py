"""Operating characteristics of the gate on simulated devices: what it finds, when, and how often it is wrong.

    python benchmarks/bench_gate.py                 under a minute
    python benchmarks/bench_gate.py --rollouts 3000

Five devices serve old and new in pairs of five-minute blocks, both in full view of a warm cache. A request's log
latency is the device's level, an AR(1) over blocks (0.7, sd 0.15) and noise (sd 0.35); arrivals are Poisson. "tail2.5"
slows the slowest tenth by 2.5, "whole1.5" everything by 1.5. Targets stand beside results. Nothing here was measured
on hardware.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
import time
from collections import Counter
from dataclasses import dataclass

import numpy as np

from drupelet.gate import Arm, BlockStats, Canary, GatePolicy, Kind, Metric, MetricRule, Pair, judge
from drupelet.gate.assess import gather
from drupelet.gate.policy import DEFAULT_METRICS

BLOCK_MIN = 5.0
TAIL_Z = 1.2815515655446004
GAMMA = 1.01 / 0.99
SEED = 20_000


@dataclass(frozen=True)
class World:
    """What is simulated: devices, pairs, traffic, and what the release does."""

    name: str
    requests_h: float = 60.0
    whole: float = 1.0
    tail: float = 1.0
    error_rate: float = 0.0
    devices: int = 5
    pairs: int = 36
    noise: float = 0.35
    drift: float = 0.15


def sketch(log_latency: np.ndarray) -> tuple[tuple[float, int], ...]:
    """Bucket latencies as a DDSketch at 1% would."""
    buckets = np.ceil(log_latency / np.log(GAMMA)).astype(int)
    return tuple((float(GAMMA**b * 2.0 / (GAMMA + 1.0)), n) for b, n in Counter(buckets.tolist()).items())


def rollout(world: World, seed: int) -> list[Pair]:
    """Simulate one rollout's pairs, in order of time."""
    rng = np.random.default_rng(seed)
    level, drift = rng.normal(0.0, 0.3, world.devices), rng.normal(0.0, world.drift, world.devices)
    pairs = []
    for index in range(world.pairs):
        for device in range(world.devices):
            first = Arm.NEW if rng.integers(2) else Arm.OLD
            blocks = {}
            for arm in (first, first.other):
                drift[device] = 0.7 * drift[device] + np.sqrt(1 - 0.49) * rng.normal(0.0, world.drift)
                z = rng.normal(size=rng.poisson(world.requests_h * BLOCK_MIN / 60.0))
                latency = level[device] + drift[device] + world.noise * z
                new = arm is Arm.NEW
                if new:
                    latency = latency + np.log(world.whole) + np.where(z > TAIL_Z, np.log(world.tail), 0.0)
                errors = int(rng.binomial(z.size, world.error_rate if new else 0.001))
                blocks[arm] = BlockStats(requests=z.size, errors=errors, latency=sketch(latency))
            at = (index + 1) * 2 * BLOCK_MIN * 60.0
            pairs.append(Pair(f"device-{device}", index, first, blocks[Arm.NEW], blocks[Arm.OLD], at))
    return pairs


def rollback_at(policy: GatePolicy, pairs: list[Pair]) -> tuple[float, int] | None:
    """Return (seconds, pairs) at which evidence first rolls back; the same rule as judge(), at every pair at once."""
    moments = []
    for rule in policy.metrics:
        if rule.alpha:
            evidence = gather(policy, rule, pairs)
            hits = np.flatnonzero(evidence.harm >= np.log(rule.threshold))
            if hits.size:
                moments.append(evidence.scores.harm_at[hits[0]])
    if not moments:
        return None
    return min(moments), sum(pair.complete_at_s <= min(moments) for pair in pairs)


def judged(policy: GatePolicy, pairs: list[Pair]) -> tuple[Kind, float]:
    """Return the first PASS or ROLLBACK of judge(), asked after every round, with its minutes; HOLD if none came."""
    canaries = [Canary(device, silent_s=0.0) for device in sorted({pair.device for pair in pairs})]
    for at in sorted({pair.complete_at_s for pair in pairs}):
        verdict = judge(policy, [p for p in pairs if p.complete_at_s <= at], canaries=canaries, elapsed_s=at)
        if verdict.kind in (Kind.PASS, Kind.ROLLBACK):
            return verdict.kind, at / 60.0
    return Kind.HOLD, pairs[-1].complete_at_s / 60.0


def missed(target: str, *, minutes: float, pairs: float = 0.0, share: float = 0.0) -> bool:
    """Whether a line falls short of its target, written as in `100%, 120 min`, `0%`, `at most 5%` or `13 pairs`."""
    for number, unit in re.findall(r"(\d+)(%| min| pairs)", target):
        bound = float(number)
        if unit == " min" and not minutes <= bound:
            return True
        if unit == " pairs" and not pairs <= bound:
            return True
        if unit == "%" and (share < 1.0 if bound == 100.0 else share > bound / 100.0):
            return True
    return False


def detection(policy: GatePolicy, worlds: list[tuple[World, str]], rollouts: int) -> bool:
    """Print how soon harm is found; return whether a target was missed."""
    short = False
    print(f"\nrollback, {rollouts} rollouts each, proven false-rollback rate {policy.total_alpha:.1%}")
    print(f"{'world':<30}{'found':>8}{'median min':>12}{'p90 min':>9}{'pairs':>7}{'requests':>10}   target")
    for world, target in worlds:
        runs = [(rollback_at(policy, pairs), pairs) for pairs in (rollout(world, SEED + i) for i in range(rollouts))]
        found = [(hit, sum(p.new.requests for p in pairs[: hit[1]])) for hit, pairs in runs if hit]
        times = sorted([hit[0] / 60.0 for hit, _ in found] + [np.inf] * (rollouts - len(found)))
        middle = float(np.quantile(times, 0.5, method="lower"))
        pairs_used = float(np.median([hit[1] for hit, _ in found])) if found else math.inf
        fails = missed(target, minutes=middle, pairs=pairs_used)
        short = short or fails
        print(
            f"{world.name:<30}{len(found) / rollouts:>8.0%}{middle:>12.0f}"
            f"{np.quantile(times, 0.9, method='lower'):>9.0f}{pairs_used:>7.0f}"
            f"{np.median([n for _, n in found]) if found else np.nan:>10.0f}   {target}{'  MISSED' if fails else ''}"
        )
    return short


def upper(events: int, trials: int) -> float:
    """Return the one-sided 95% bound of a rare rate (Poisson): 3/n for no events."""
    low, high = 0.0, 10.0 + 3.0 * events
    for _ in range(50):
        mean = (low + high) / 2.0
        tail = sum(math.exp(-mean) * mean**k / math.factorial(k) for k in range(events + 1))
        low, high = (mean, high) if tail > 0.05 else (low, mean)
    return high / trials


def false_rollbacks(policy: GatePolicy, rollouts: int) -> None:
    world = World("null")
    wrong = sum(rollback_at(policy, rollout(world, 3 * SEED + i)) is not None for i in range(rollouts))
    bound = f"below {upper(wrong, rollouts):.2%} at 95%" + (" (3/n)" if wrong == 0 else "")
    print(
        f"\nfalse rollbacks: {wrong} of {rollouts} null rollouts, {bound}; "
        f"proven by construction: {policy.total_alpha:.1%}"
    )


def passing(policy: GatePolicy, worlds: list[tuple[World, str]], rollouts: int) -> bool:
    """Print how often and how soon releases pass; return whether a target was missed."""
    short = False
    print(f"\nPASS, {rollouts} rollouts each, asked after every round of pairs")
    print(f"{'world':<30}{'pass':>8}{'rollback':>10}{'hold':>7}{'median min to pass':>20}   target")
    for world, target in worlds:
        ends = [judged(policy, rollout(world, 5 * SEED + i)) for i in range(rollouts)]
        share = {kind: sum(end is kind for end, _ in ends) / rollouts for kind in Kind}
        times = [minutes for end, minutes in ends if end is Kind.PASS]
        middle = float(np.median(times)) if times else math.nan
        fails = missed(target, minutes=middle, share=share[Kind.PASS])
        short = short or fails
        print(
            f"{world.name:<30}{share[Kind.PASS]:>8.0%}{share[Kind.ROLLBACK]:>10.0%}{share[Kind.HOLD]:>7.0%}"
            f"{middle:>20.0f}   {target}{'  MISSED' if fails else ''}"
        )
    return short


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rollouts", type=int, default=50, help="simulated rollouts per line")
    n = arguments.parse_args().rollouts
    began = time.perf_counter()
    policy = GatePolicy()
    misses = [
        detection(
            policy,
            [
                (World("tail2.5, 60 requests/h", tail=2.5), "40 min"),
                (World("tail2.5, 120 requests/h", requests_h=120, tail=2.5), ""),
                (World("tail2.5, 300 requests/h", requests_h=300, tail=2.5), "40 min"),
                (World("tail1.5, 300 requests/h", requests_h=300, tail=1.5), ""),
                (World("whole1.5, 60 requests/h", whole=1.5), "70 min"),
                (World("whole1.25, 60 requests/h", whole=1.25), "180 min"),
                (World("errors 5%, 60 requests/h", error_rate=0.05), ""),
                (World("one device, tail2.5, 300/h", requests_h=300, tail=2.5, devices=1), "190 min"),
                (World("one device, whole1.5, 60/h", whole=1.5, devices=1), ""),
            ],
            n,
        )
    ]
    false_rollbacks(policy, 10 * n)
    misses.append(
        passing(
            policy,
            [
                (World("null, 60 requests/h"), "100%, 120 min"),
                (World("null, 300 requests/h", requests_h=300), "100%, 120 min"),
                (World("tail1.5", tail=1.5), "0%"),
                (World("tail2.5", tail=2.5), "0%"),
                (World("whole1.25", whole=1.25), "at most 5%"),
                (World("whole1.5", whole=1.5), "0%"),
                (World("errors 5%", error_rate=0.05), "0%"),
            ],
            max(n // 4, 5),
        )
    )
    demo = GatePolicy(metrics=tuple(_demo_rule(rule) for rule in DEFAULT_METRICS))
    print("\nshort blocks, 10 requests a block, noise 0.25, tail watched but not mandatory:")
    short = {"requests_h": 120.0, "noise": 0.25, "drift": 0.1, "pairs": 16}
    # Blocks of five minutes, where a demo's are of seconds: 80 minutes are 8 pairs of one device, 30 are 3 rounds.
    misses.append(passing(demo, [(World("null, 1 device", devices=1, **short), "80 min")], n))
    misses.append(passing(demo, [(World("null, 3 devices", devices=3, **short), "30 min")], n))
    misses.append(detection(demo, [(World("whole2.5, 3 devices", devices=3, whole=2.5, **short), "13 pairs")], n))
    print(f"\n{time.perf_counter() - began:.0f} s")
    sys.exit(1 if any(misses) else 0)


def _demo_rule(rule: MetricRule) -> MetricRule:
    if rule.metric is Metric.TAIL:
        return MetricRule(rule.metric, alpha=rule.alpha, margin=1.5)
    if rule.metric is Metric.ERRORS:
        return MetricRule(rule.metric, alpha=rule.alpha, margin=0.1, mandatory=True)
    return rule


if __name__ == "__main__":
    main()
