"""Named stories of one device. A bug that was found becomes one of these."""

from __future__ import annotations

import msgspec
import pytest

from drupelet.agent import requests
from drupelet.agent.model import RESTING
from drupelet.core.names import Slot
from drupelet.core.states import Mode, Reason, UpdateState
from drupelet.sim.crash import serves
from drupelet.sim.device import ROOT, SimDevice
from drupelet.sim.traits import Traits
from drupelet.trust.errors import NotTrusted
from drupelet.wire.manifest import ReleaseManifest

S = UpdateState


@pytest.fixture
def device() -> SimDevice:
    """A device that serves 1.1."""
    device = SimDevice(seed=5)
    first(device)
    return device


def first(device: SimDevice) -> ReleaseManifest:
    manifest = device.forge("1.1")
    device.order(Mode.INSTALL, manifest)
    device.settle()
    return manifest


def release(device: SimDevice, version: str) -> ReleaseManifest:
    return next(m for m in device.releases.manifests.values() if m.version == version)


def reach(device: SimDevice, state: S) -> None:
    device.run(lambda d: d.state.state is state, what=state.value)


def pairs(device: SimDevice, count: int) -> None:
    def enough(d: SimDevice) -> bool:
        return d.state.update is not None and d.state.update.pairs_done >= count

    device.run(enough, what=f"{count} pairs")


def told(device: SimDevice) -> list[tuple[str, Reason]]:
    return [(event.event, event.reason) for event in device.state.recent]


def ask(device: SimDevice, verb: str) -> requests.LocalAnswer:
    folder = device.config.layout.requests
    requests.ask(device.disk, folder, "r1", requests.LocalRequest(verb=verb))  # type: ignore[arg-type]
    device.run(lambda d: d.disk.exists(folder / "r1.answer.json"), what="an answer")
    answer = requests.answered(device.disk, folder, "r1")
    assert answer is not None
    return answer


def test_coins_are_on_record_before_the_blocks_they_decide(device: SimDevice) -> None:
    device.order(Mode.CANARY, device.forge("1.2"))
    pairs(device, 3)
    blocks = [route.block for route in device.gateway.routes if route.block is not None]
    for pair in range(3):
        arms = [block.arm for block in blocks if block.pair == pair]
        assert sorted(arms) == ["new", "old"]
        assert arms[0] == next(block.first for block in blocks if block.pair == pair)
    assert {block.serial for block in blocks} == {2}


def test_a_network_that_holds_the_agent_up_loses_no_block(device: SimDevice) -> None:
    device.order(Mode.CANARY, device.forge("1.2"), verdict_ms_max=600_000)
    reach(device, S.PROBATION)
    device.fleet.slow_ms = 9_000
    pairs(device, 3)
    blocks = [route.block for route in device.gateway.routes if route.block is not None]
    assert [(block.pair, block.arm == block.first) for block in blocks[:6]] == [
        (pair, is_first) for pair in range(3) for is_first in (True, False)
    ]


def test_the_watchdogs_prompts_disturb_no_measurement(device: SimDevice) -> None:
    manifest = device.forge("1.2")
    device.order(Mode.CANARY, manifest, verdict_ms_max=600_000)
    reach(device, S.PROBATION)
    device.gateway.trials.clear()
    pairs(device, 4)
    assert device.gateway.trials
    for at_ms, route in device.gateway.trials:
        assert route.block is not None
        assert (route.block.arm, at_ms <= 200) == ("new", True)


def test_pairs_are_bounded_then_the_committed_release_serves(device: SimDevice) -> None:
    device.order(Mode.CANARY, device.forge("1.2"), verdict_ms_max=600_000)
    pairs(device, 4)
    device.run(lambda d: d.gateway.routes[-1].block is None, what="the last route")
    assert serves(device, release(device, "1.1"))


@pytest.mark.parametrize(
    ("traits", "reason"),
    [
        (Traits(answer="banana"), Reason.CANONICAL_FAILED),
        (Traits(loads=False), Reason.LOAD_FAILED),
        (Traits(ttft_ms=5_000), Reason.TOO_SLOW),
        (Traits(memory_bytes=200_000_000), Reason.MEMORY_EXCEEDED),
    ],
)
def test_a_bad_release_never_gets_past_its_trial(device: SimDevice, traits: Traits, reason: Reason) -> None:
    device.order(Mode.CANARY, device.forge("1.3", traits))
    device.settle()
    assert (device.state.state, device.state.reason) == (S.FAILED, reason)
    assert all(route.slot is Slot.A for route in device.gateway.routes)
    device.run(lambda d: set(d.gateway.children) == {Slot.A}, what="the bad child to end")


def test_an_unsigned_release_is_refused_before_a_byte_is_downloaded(device: SimDevice) -> None:
    device.order(Mode.INSTALL, device.forge("1.3", signed=False))
    device.settle()
    assert (device.state.state, device.state.reason) == (S.FAILED, Reason.UNSIGNED)
    assert len(device.source.sent) == 1


@pytest.mark.parametrize(
    ("lie", "reason"),
    [
        (lambda blob: bytes([blob[0] ^ 1]) + blob[1:], Reason.DIGEST_MISMATCH),
        (lambda blob: blob[:-100], Reason.TRUNCATED),
        (lambda blob: blob + bytes(5000), Reason.TOO_LARGE),
    ],
)
def test_a_lying_depot_is_given_up_with_its_reason(device: SimDevice, lie: object, reason: Reason) -> None:
    manifest = device.forge("1.2")
    digest = manifest.variants[0].digest
    device.source.lies[digest] = lie(device.releases.blobs[digest])  # type: ignore[operator]
    device.order(Mode.INSTALL, manifest)
    device.settle()
    assert (device.state.state, device.state.reason) == (S.FAILED, reason)
    assert device.source.sent[digest] < 4 * len(device.releases.blobs[digest])
    device.run(lambda d: not d.disk.names(d.config.layout.parts), what="the part file to be collected")


def test_refused_metadata_is_told_once_for_each_cause(device: SimDevice) -> None:
    for reason, polls in ((Reason.WRONG_DEVICE, 5), (Reason.REPLAYED, 5), (Reason.WRONG_DEVICE, 5)):
        device.fleet.refusal = NotTrusted("no", reason=reason)
        upto = len(device.fleet.polls) + polls
        device.run(lambda d, n=upto: len(d.fleet.polls) >= n, what="polls")  # type: ignore[misc]
    noted = [reason for event, reason in told(device) if event == "noted"]
    assert noted == [Reason.WRONG_DEVICE, Reason.REPLAYED]
    assert {event.reason for event in device.fleet.events.values()} >= {Reason.WRONG_DEVICE, Reason.REPLAYED}


def test_silence_never_passes(device: SimDevice) -> None:
    device.order(Mode.CANARY, device.forge("1.2"), verdict_ms_max=20_000)
    reach(device, S.PROBATION)
    device.fleet.away = True
    reach(device, S.FAILED)
    assert device.state.reason is Reason.NO_VERDICT
    assert serves(device, release(device, "1.1"))


def test_the_verdict_timer_survives_restarts(device: SimDevice) -> None:
    device.order(Mode.CANARY, device.forge("1.2"), verdict_ms_max=20_000)
    reach(device, S.PROBATION)
    device.fleet.away = True
    begun = device.clock.now_ms
    for _ in range(8):
        until = device.clock.now_ms + 3_000
        device.run(lambda d, t=until: d.clock.now_ms >= t, what="time to pass")  # type: ignore[misc]
        device.power_on()
    reach(device, S.FAILED)
    assert device.clock.now_ms - begun < 60_000


def test_a_watchdog_prompt_that_fails_takes_the_release_back(device: SimDevice) -> None:
    manifest = device.forge("1.2")
    device.order(Mode.CANARY, manifest)
    reach(device, S.PROBATION)
    device.releases.traits[manifest.variants[0].digest].answer = "gibberish"
    reach(device, S.FAILED)
    assert device.state.reason is Reason.WATCHDOG
    assert serves(device, release(device, "1.1"))


def test_a_condemned_release_on_probation_is_left_at_once(device: SimDevice) -> None:
    manifest = device.forge("1.2")
    device.order(Mode.CANARY, manifest)
    reach(device, S.PROBATION)
    device.condemn(manifest)
    device.order(Mode.CANARY, manifest)
    device.run(lambda d: d.state.state in RESTING, what="going back")
    assert serves(device, release(device, "1.1"))
    assert device.state.is_condemned("kiosk/1.2", "") is not None


def test_a_newer_order_supersedes_a_download_and_the_old_part_is_collected(device: SimDevice) -> None:
    device.source.away = True
    device.order(Mode.INSTALL, device.forge("1.2"))
    device.run(
        lambda d: d.state.state is S.DOWNLOADING and d.state.reason is not Reason.NONE, what="a stalled download"
    )
    device.source.away = False
    third = device.forge("1.3")
    device.order(Mode.INSTALL, third)
    device.settle()
    assert serves(device, third)
    device.run(lambda d: not d.disk.names(d.config.layout.parts), what="collection")


def test_a_commit_that_comes_too_early_is_obeyed_once_it_makes_sense(device: SimDevice) -> None:
    manifest = device.forge("1.2")
    device.order(Mode.CANARY, manifest)
    device.run(lambda d: d.state.state in (S.DOWNLOADING, S.VERIFYING), what="a download")
    device.order(Mode.COMMIT, manifest)
    device.settle(serial=3)
    assert device.state.committed is Slot.B


def test_a_full_disk_stops_the_update_and_nothing_else(device: SimDevice) -> None:
    manifest = device.forge("1.2")
    device.order(Mode.INSTALL, manifest)
    reach(device, S.DOWNLOADING)
    device.disk.full = True
    upto = len(device.fleet.polls) + 5
    device.run(lambda d: len(d.fleet.polls) >= upto, what="heartbeats")
    assert device.fleet.polls[-1].status.reason is Reason.DISK_FULL
    device.disk.full = False
    device.settle()
    assert serves(device, manifest)


def test_the_gateway_may_be_away_for_a_while(device: SimDevice) -> None:
    manifest = device.forge("1.2")
    device.order(Mode.INSTALL, manifest)
    reach(device, S.TRIAL)
    device.gateway.down = True
    device.run(lambda d: d.state.reason is Reason.GATEWAY_UNREACHABLE, what="the delay to be said")
    device.gateway.down = False
    device.settle()
    assert serves(device, manifest)


def test_a_lost_journal_is_rebuilt_from_the_slots(device: SimDevice) -> None:
    device.order(Mode.INSTALL, device.forge("1.2"))
    device.settle()
    device.disk.remove(device.config.layout.journal / "log.jsonl")
    device.power_on()
    assert (device.state.committed, set(device.state.slots)) == (Slot.B, {Slot.A, Slot.B})
    device.run(lambda d: d.fleet.polls[-1].boot == "b2", what="a heartbeat")
    assert serves(device, release(device, "1.2"))


def test_a_damaged_journal_keeps_serving_and_forgets_no_condemnation(device: SimDevice) -> None:
    device.condemn(device.forge("0.9"))
    device.order(Mode.INSTALL, device.forge("1.2"))
    device.settle()
    log = device.disk.files[device.config.layout.journal / "log.jsonl"]
    log.data[len(log.data) // 4] ^= 0xFF
    device.power_on()
    device.run(lambda d: d.state.recent[-1].event == "noted", what="the damage to be told")
    assert serves(device, release(device, "1.2"))
    assert device.state.is_condemned("kiosk/0.9", "") is not None


def test_a_rollback_needs_no_server(device: SimDevice) -> None:
    device.order(Mode.INSTALL, device.forge("1.2"))
    device.settle()
    device.fleet.away = True
    assert ask(device, "rollback").accepted
    reach(device, S.FAILED)
    assert device.state.reason is Reason.OPERATOR
    assert serves(device, release(device, "1.1"))
    assert ask(device, "rollback").accepted
    device.run(lambda d: serves(d, release(d, "1.2")), what="going forward again")


def test_a_rollback_with_no_other_slot_says_so(device: SimDevice) -> None:
    answer = ask(device, "rollback")
    assert (answer.accepted, answer.reason) == (False, Reason.NO_OTHER_SLOT)


def test_a_hold_keeps_an_update_from_beginning(device: SimDevice) -> None:
    assert ask(device, "hold").accepted
    manifest = device.forge("1.2")
    device.order(Mode.INSTALL, manifest)
    device.run(lambda d: d.state.reason is Reason.HELD, what="the hold to be said")
    assert ask(device, "release").accepted
    device.settle()
    assert serves(device, manifest)


@pytest.mark.parametrize("skew_ms", [-1_790_000_000_000, 450_000_000_000])
def test_a_wrong_clock_changes_nothing(skew_ms: int) -> None:
    device = SimDevice(seed=2)
    device.clock.skew_ms = skew_ms
    assert serves(device, first(device))


def test_an_outage_of_hours_is_waited_out_with_few_attempts(device: SimDevice) -> None:
    device.fleet.away = True
    begun, before = device.clock.now_ms, device.fleet.attempts
    device.run(lambda d: d.clock.now_ms - begun > 600_000, what="an outage")
    assert 600 / 8 <= device.fleet.attempts - before <= 600 / 3
    device.fleet.away = False
    manifest = device.forge("1.2")
    device.order(Mode.INSTALL, manifest)
    device.settle()
    assert serves(device, manifest)


def test_a_first_release_that_dies_serves_on_for_there_is_no_other() -> None:
    device = SimDevice(seed=4)
    manifest = device.forge("1.1", Traits(deaths_a_look=2))
    device.order(Mode.INSTALL, manifest, probation_ms=60_000)
    device.settle()
    assert (device.state.reason, device.state.committed) == (Reason.NO_OTHER_SLOT, None)
    assert serves(device, manifest)
    good = device.forge("1.2")
    device.order(Mode.INSTALL, good)
    device.settle()
    assert serves(device, good)
    assert device.state.committed is Slot.B


def test_a_slot_that_rotted_is_not_served_and_the_other_one_goes_on(device: SimDevice) -> None:
    second = device.forge("1.2")
    device.order(Mode.INSTALL, second)
    device.settle()
    rotten = device.disk.files[device.config.layout.model(Slot.A)]
    rotten.data[0] ^= 1
    device.run(lambda d: set(d.gateway.children) == {Slot.B}, what="the old child to end")
    device.order(Mode.REVERT, release(device, "1.1"))
    device.run(lambda d: d.state.state is S.FAILED or _violated(d), what="the revert to be given up")
    assert device.state.reason is Reason.NO_OTHER_SLOT
    assert serves(device, second)


def _violated(device: SimDevice) -> bool:
    return bool(device.gateway.violations)


def test_nothing_is_left_of_the_state_folder_but_what_is_documented(device: SimDevice) -> None:
    device.order(Mode.CANARY, device.forge("1.2"))
    pairs(device, 1)
    top = {path.relative_to(ROOT).parts[0] for path in device.disk.files}
    assert top <= {"journal", "store", "slots", "serve.json", "status.json", "spool", "requests", "parts"}


def test_every_told_event_reaches_the_fleet_once(device: SimDevice) -> None:
    device.order(Mode.CANARY, device.forge("1.3", Traits(answer="banana")))
    device.settle()
    device.run(lambda d: max(d.fleet.events) == d.state.recent[-1].seq, what="all events to be told")
    assert list(device.fleet.events.values()) == list(device.state.recent)
    assert msgspec.json.encode(device.state)
