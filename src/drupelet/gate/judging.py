"""The gate's one question: given what was measured, may the rollout go on?

    evidence of harm ever reached 1 / alpha on a metric     ROLLBACK
    else the stage's deadline is past                       HOLD (expired) or ROLLBACK, as the policy says; never PASS
    else pooled evidence of harm reaches `pause_evidence`   PAUSE
    else anything that PASS needs is missing                HOLD, naming what is missing
    else                                                    PASS

Pooled evidence is the mean over metrics, weighted by their alphas: a mean of e-values is an e-value. Harm is judged
over the whole rollout's pairs, so `total_alpha` is per rollout; PASS also needs the present stage's own canaries to be
covered. Rollback looks at the *peak* of the evidence (Ville's inequality bounds it), so the answer does not depend on
how often it was asked.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .assess import Evidence, finding, gather, linear
from .coverage import Canary, Seen, seen, spoken_s
from .errors import GateError
from .pairs import Pair, in_order
from .policy import GatePolicy
from .scores import Metric, usable
from .verdict import Finding, Kind, Verdict, number, plural


@dataclass(frozen=True, slots=True)
class Moment:
    """A metric's evidence when a pair came in: of harm, and against "worse by the margin" (None without a margin)."""

    at_s: float
    metric: Metric
    harm: float
    noninferior: float | None


def judge(policy: GatePolicy, pairs: Iterable[Pair], *, canaries: Iterable[Canary], elapsed_s: float) -> Verdict:
    """Return what should happen to the rollout, and why.

    `pairs` are all closed pairs of this rollout, any order; `canaries` the devices of the present stage; `elapsed_s`
    the stage's age. Raises GateError for an age that is none, PairError when a pair is handed in twice.
    """
    if not (math.isfinite(elapsed_s) and elapsed_s >= 0.0):
        raise GateError(f"elapsed_s is {elapsed_s!r}, the stage's age in seconds is needed", where="judge")
    ordered = in_order(pairs)
    gathered = [gather(policy, rule, ordered) for rule in policy.metrics]
    return _Bench(policy, ordered, gathered, tuple(canaries), elapsed_s).decide()


def history(policy: GatePolicy, pairs: Iterable[Pair]) -> tuple[Moment, ...]:
    """Return the evidence over time, for a chart: one moment per metric and score, in order of time."""
    ordered = in_order(pairs)
    moments: list[Moment] = []
    for evidence in (gather(policy, rule, ordered) for rule in policy.metrics):
        proof = dict(zip(evidence.noninferior_at, evidence.noninferior, strict=True))
        latest = None if evidence.rule.margin is None else 1.0
        for at_s, value in zip(evidence.scores.harm_at, evidence.harm, strict=True):
            latest = linear(proof[at_s]) if at_s in proof else latest
            moments.append(Moment(at_s, evidence.rule.metric, linear(value), latest))
    return tuple(sorted(moments, key=lambda moment: moment.at_s))


class _Bench:
    """Everything on the table, and the decision."""

    def __init__(
        self,
        policy: GatePolicy,
        pairs: tuple[Pair, ...],
        gathered: Sequence[Evidence],
        canaries: tuple[Canary, ...],
        elapsed_s: float,
    ) -> None:
        self.policy = policy
        self.pairs = pairs
        self.elapsed_s = elapsed_s
        self.growth = {e.rule.metric: e.noninferior for e in gathered}
        self.findings = tuple(finding(policy, evidence, pairs) for evidence in gathered)
        self.pooled = math.fsum(self._pooled_part(found) for found in self.findings)
        kept = [pair for pair in pairs if usable(pair, requests_min=policy.block_requests_min)]
        self.usable = len(kept)
        self.devices = len({pair.device for pair in kept})
        self.requests = sum(pair.new.requests + pair.old.requests for pair in pairs)
        self.seen: Seen = seen(
            canaries,
            pairs_of=dict(Counter(pair.device for pair in kept)),
            share=policy.coverage,
            fresh_s=policy.fresh_s,
            device_pairs_min=policy.device_pairs_min,
        )

    def decide(self) -> Verdict:
        worst = max(self.findings, key=lambda found: found.peak / found.threshold)
        if worst.condemns:
            text = f"{worst.measured}; evidence {number(worst.peak)} against {number(worst.threshold)} needed"
            return self._verdict(Kind.ROLLBACK, text)
        missing = self._missing()
        if self.elapsed_s > self.policy.deadline_s:
            lacking = "; ".join(missing or ["it came too late"])
            text = f"the deadline of {spoken_s(self.policy.deadline_s)} is past without proof of no harm: {lacking}"
            return self._verdict(self.policy.at_deadline, text, wants="a person's decision", expired=True)
        if self.pooled >= self.policy.pause_evidence:
            suspect = max(self.findings, key=self._pooled_part)
            text = (
                f"{suspect.measured}; evidence of harm over all metrics {number(self.pooled)} "
                f"(pauses at {number(self.policy.pause_evidence)}), on this one {number(suspect.evidence)} "
                f"(rolls back at {number(suspect.threshold)})"
            )
            return self._verdict(Kind.PAUSE, text, wants=self._resumes(suspect))
        if missing:
            unproven = [found.measured for found in self.findings if found.mandatory and not found.proven]
            return self._verdict(Kind.HOLD, "; ".join([missing[0], *unproven[:1]]), wants="; ".join(missing))
        return self._verdict(Kind.PASS, "; ".join(self._proofs()))

    def _pooled_part(self, found: Finding) -> float:
        alphas = math.fsum(rule.alpha for rule in self.policy.metrics)
        return found.evidence / found.threshold / alphas if alphas else 0.0

    def _missing(self) -> list[str]:
        """Return a sentence for everything PASS still needs, the most telling first."""
        policy, missing = self.policy, list(self.seen.missing)
        if self.devices < policy.devices_min:
            missing.append(f"{plural(self.devices, 'device')} compared, {policy.devices_min} needed")
        if self.usable < policy.pairs_min:
            missing.append(f"{plural(self.usable, 'usable pair')} so far, {policy.pairs_min} needed")
        unusable = len(self.pairs) - self.usable
        if self.pairs and self.usable < policy.usable_min * len(self.pairs):
            missing.append(
                f"{unusable} of {plural(len(self.pairs), 'pair')} could not be compared (a block had fewer than "
                f"{plural(policy.block_requests_min, 'answered request')})"
            )
        missing += [self._unproven(found) for found in self.findings if found.mandatory and not found.proven]
        return missing

    def _unproven(self, found: Finding) -> str:
        have = found.noninferior if found.noninferior is not None else 1.0
        text = (
            f"{found.name} is not yet proven to stay below {found.margin_text}: "
            f"evidence {number(have)}, {number(found.needed)} needed"
        )
        steps = len(self.growth[found.metric])
        if steps == 0:
            return text
        if have <= 1.0:
            return f"{text}; at this effect more pairs will not help"
        pairs_a_step = max(found.pairs, steps) / steps
        more = math.ceil(math.log(found.needed / have) * steps / math.log(have) * pairs_a_step)
        return f"{text}, about {plural(more, 'more pair')} at this effect"

    def _resumes(self, suspect: Finding) -> str:
        each = math.log(suspect.evidence) / max(suspect.pairs, 1)
        more = max(1, math.ceil(math.log(suspect.threshold / suspect.evidence) / each))
        return (
            f"about {plural(more, 'more pair')} at this effect roll it back; "
            f"it goes on once the evidence over all metrics falls below {number(self.policy.pause_evidence)}"
        )

    def _proofs(self) -> list[str]:
        proofs = [
            f"{found.measured}, proven below {found.margin_text} with evidence {number(found.noninferior or 0.0)}"
            for found in self.findings
            if found.mandatory
        ]
        return [*proofs, f"{self.seen.covered} of the stage's {plural(self.seen.expected, 'device')} covered"]

    def _verdict(self, kind: Kind, text: str, *, wants: str = "", expired: bool = False) -> Verdict:
        counts = f"{plural(self.devices, 'device')}, {plural(self.usable, 'pair')}, {plural(self.requests, 'request')}"
        return Verdict(
            kind=kind,
            reason=f"{kind.value.upper()}: {text}; {counts}.",
            wants=wants,
            expired=expired,
            findings=self.findings,
            pooled=self.pooled,
            devices=self.devices,
            pairs=self.usable,
            unusable=len(self.pairs) - self.usable,
            requests=self.requests,
        )
