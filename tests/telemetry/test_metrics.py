from __future__ import annotations

import itertools
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from drupelet.core.errors import NotFound
from drupelet.core.names import Slot
from drupelet.core.states import ExitReason, Reason, UpdateState
from drupelet.telemetry.collectors import COLLECTORS, DeviceCollector, Machine
from drupelet.telemetry.metrics import AgentMetrics, GatewayMetrics, Outcome, UpdateOutcome
from drupelet.telemetry.registry import AGENT, DEVICE, GATEWAY, METRICS, REQUEST_BUCKETS_S, Kind
from drupelet.telemetry.sensors import PiSensors
from tests.fakes.fake_pi import FakePi

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]
DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"


def samples(text: bytes) -> Samples:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def value(text: bytes, name: str, **labels: str) -> float | None:
    return samples(text).get((name, tuple(sorted(labels.items()))))


@pytest.fixture
def device(pi: FakePi, sensors: PiSensors) -> DeviceCollector:
    pi.process(42, resident_mib=31, cpu_ticks={"user": 10, "system": 10})
    ticks = itertools.count()
    return DeviceCollector(Machine(sensors, pid=42), clock=lambda: next(ticks) / 4)


@pytest.fixture
def gateway(device: DeviceCollector) -> GatewayMetrics:
    made = GatewayMetrics([device])
    made.serving(Slot.A, model="kiosk", version="1.1", digest="sha256:" + "0" * 64, quant="q8_0")
    made.request(
        Outcome.OK, 1.2, model="kiosk", slot=Slot.A, prompt_tokens=70, completion_tokens=11, ttft_s=0.2, decode_s=1.0
    )
    made.request(Outcome.REFUSED, 0.001, model="kiosk")
    made.queue(running=2, waiting=5)
    made.exited(ExitReason.OOM_KILLED)
    made.child_memory(Slot.A, resident_bytes=40 << 20)
    return made


@pytest.fixture
def agent(device: DeviceCollector) -> AgentMetrics:
    made = AgentMetrics([device])
    made.state(UpdateState.PROBATION)
    made.updated(UpdateOutcome.REVERTED, Reason.TOO_SLOW)
    made.spool(pending=3, bytes_used=8192, dropped=7)
    made.polled(1_790_000_000.0)
    made.throttles({"undervoltage": 2})
    return made


def test_a_request_is_seen_from_every_side(gateway: GatewayMetrics) -> None:
    text = gateway.text()
    labels = {"model": "kiosk", "prompt_bucket": "64-255", "outcome": "ok", "served_by": "a"}
    assert value(text, "genai_request_duration_seconds_bucket", le="1.2", **labels) == 1
    assert value(text, "genai_request_duration_seconds_bucket", le="1.0", **labels) == 0
    assert value(text, "genai_request_duration_seconds_count", **labels | {
        "outcome": "refused", "served_by": "none", "prompt_bucket": "0-63"
    }) == 1  # fmt: skip
    assert value(text, "genai_time_to_first_token_seconds_sum", model="kiosk", prompt_bucket="64-255") == 0.2
    assert value(text, "genai_time_per_output_token_seconds_sum", model="kiosk") == pytest.approx(0.1)
    assert value(text, "genai_tokens_total", type="prompt") == 70
    assert value(text, "genai_tokens_total", type="completion") == 11
    assert value(text, "genai_decode_seconds_total") == 1.0
    assert (value(text, "genai_requests_running"), value(text, "genai_requests_waiting")) == (2, 5)


def test_every_exit_reason_is_there_from_the_start(gateway: GatewayMetrics) -> None:
    exits = {r: value(gateway.text(), "genai_runtime_exits_total", reason=r.value) for r in ExitReason}
    assert exits == {reason: float(reason is ExitReason.OOM_KILLED) for reason in ExitReason}


def test_a_slot_says_only_what_it_serves_now(gateway: GatewayMetrics) -> None:
    gateway.serving(Slot.A, model="kiosk", version="1.2", digest="sha256:" + "1" * 64, quant="q4_0")
    info = [labels for (name, labels) in samples(gateway.text()) if name == "genai_model_info"]
    assert [dict(labels)["version"] for labels in info] == ["1.2"]
    gateway.unloaded(Slot.A)
    gateway.unloaded(Slot.A)
    left = {name for name, _ in samples(gateway.text())}
    assert not left & {"genai_model_info", "genai_runtime_resident_memory_bytes", "genai_runtime_swap_bytes"}


def test_the_agent_is_in_exactly_one_state(agent: AgentMetrics) -> None:
    states = {s: value(agent.text(), "drupelet_update_state", state=s.value) for s in UpdateState}
    assert states == {state: float(state is UpdateState.PROBATION) for state in UpdateState}
    assert value(agent.text(), "drupelet_update_total", outcome="reverted", reason="too_slow") == 1


def test_totals_kept_elsewhere_never_go_back(agent: AgentMetrics) -> None:
    for dropped in (7, 9, 3):
        agent.spool(pending=0, bytes_used=0, dropped=dropped)
    agent.throttles({"undervoltage": 2})
    assert value(agent.text(), "drupelet_spool_dropped_windows_total") == 9
    assert value(agent.text(), "device_throttle_events_total", reason="undervoltage") == 2
    assert value(agent.text(), "device_throttle_events_total", reason="throttled") == 0


def test_the_device_is_read_at_every_scrape(pi: FakePi, gateway: GatewayMetrics) -> None:
    assert value(gateway.text(), "device_temperature_celsius", sensor="cpu-thermal") == 48.3
    pi.temperature(81.0)
    pi.throttled(0x80008)
    text = gateway.text()
    assert value(text, "device_temperature_celsius", sensor="cpu-thermal") == 81.0
    assert value(text, "device_throttled", reason="soft_temperature_limit") == 1
    assert value(text, "device_throttled", reason="undervoltage") == 0
    assert value(text, "device_memory_bytes", kind="total") == 8 << 30
    assert value(text, "process_resident_memory_bytes") == 31 << 20


def test_a_failing_collector_says_so_and_silences_nobody(pi: FakePi, gateway: GatewayMetrics) -> None:
    (pi.folder / "throttled.txt").write_text("nonsense")
    text = gateway.text()
    success = {name: value(text, "drupelet_collector_success", collector=name) for name in COLLECTORS}
    assert success == {name: float(name != "throttled") for name in COLLECTORS}
    assert value(text, "drupelet_collector_duration_seconds", collector="throttled") == 0.25
    assert value(text, "device_throttled", reason="undervoltage") is None
    assert value(text, "device_temperature_celsius", sensor="cpu-thermal") == 48.3


def test_a_collector_that_does_not_exist_is_refused(sensors: PiSensors) -> None:
    with pytest.raises(NotFound, match="choose from memory, process, temperature, throttled"):
        DeviceCollector(Machine(sensors, pid=1), clock=lambda: 0.0, names=["npu"])


def test_what_is_exposed_is_what_the_table_says(gateway: GatewayMetrics, agent: AgentMetrics) -> None:
    exposed = {}
    for metrics, specs in ((gateway, (*GATEWAY, *DEVICE)), (agent, (*AGENT, *DEVICE))):
        for family in text_string_to_metric_families(metrics.text().decode()):
            name = family.name + "_total" if family.type == "counter" else family.name
            exposed[name] = (family.type, family.documentation)
            assert name in {spec.name for spec in specs}
            labels = {label for sample in family.samples for label in sample.labels} - {"le"}
            assert labels <= set(METRICS[name].labels)
    assert exposed == {spec.name: (spec.kind.value, spec.says) for spec in METRICS.values()}


def test_the_docs_list_every_metric_as_it_is() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| ([^|]*) \| ([^|]*) \|$", DOCS.read_text(), flags=re.MULTILINE)
    documented = {name: (kind, labels.strip().replace("`", ""), says.strip()) for name, kind, labels, says in rows}
    assert documented == {s.name: (s.kind.value, ", ".join(s.labels), s.says) for s in METRICS.values()}
    edges = " ".join(f"{edge:g}" for edge in REQUEST_BUCKETS_S)
    assert edges in DOCS.read_text()


def test_names_follow_the_conventions() -> None:
    for spec in METRICS.values():
        assert (spec.kind is Kind.COUNTER) == spec.name.endswith("_total")
        assert ":" not in spec.name
        assert bool(spec.buckets) == (spec.kind is Kind.HISTOGRAM)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (Debian's package prometheus)")
@pytest.mark.parametrize("process", ["gateway", "agent"])
def test_promtool_has_nothing_to_say(process: str, request: pytest.FixtureRequest) -> None:
    text = request.getfixturevalue(process).text()
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (Debian's package prometheus)")
def test_promtool_would_say_something() -> None:
    bad = b"# HELP drupelet_things Things.\n# TYPE drupelet_things counter\ndrupelet_things 1\n"
    done = subprocess.run(["promtool", "check", "metrics"], input=bad, capture_output=True, timeout=30, check=False)
    assert done.returncode != 0
