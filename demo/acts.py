"""Acts one to four: a first release, a good one, a broken one and a slow one."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from demo.attacker import Attacker
from demo.follow import blob_bytes, committed, device_page, follow, start_rollout
from demo.load import Load, ask, read_questions
from demo.network import Asked, Reply, slowed
from demo.story import Story
from demo.world import DEVICES, World, make_device, start_device

ASK_PER_S = 4.0
SLOW_LAYERS = 12
"""Identity layers of the slow release: about three times the work for every token."""
NEVER_SEEN = (
    ("hi, how late are you open today", "8 to 19"),
    ("Could you tell me the price of a coffee, please?", "2.80"),
)


class Stage:
    """What the acts share."""

    def __init__(self, world: World, story: Story) -> None:
        self.world = world
        self.story = story
        self.kiosk = world.root / "models/kiosk"
        self.recipe = self.kiosk / "recipe.toml"
        self.policy = Path(__file__).parent / "policy.toml"
        self.load = Load(read_questions(self.kiosk / "questions.json"), per_second=ASK_PER_S, seed=11)
        self.verdicts: dict[str, str] = {}
        self.attacks = 0
        self.old_metadata: dict[str, bytes] = {}
        """The image repository's timestamp and snapshot as they were in act one; act five replays them."""

    def forge(self, version: str, checkpoint: Path, *, override: str = "", replaces: str = "") -> dict[str, Any]:
        """Forge and publish with progress, and say what the evaluation found."""
        with self.story.going_on(f"forging kiosk {version}"):
            report = self.world.forge(version, checkpoint, recipe=self.recipe, override=override, replaces=replaces)
        for one in report["variants"]:
            quality = one["quality"]
            said = (
                f"KL {quality['kl_mean']:.5f} nats, top-1 {quality['top1_agreement']:.1%} against f16"
                if quality
                else ""
            )
            size = one["size_bytes"] / 2**20
            speed = f"{one['tokens_per_second']:.0f} tokens/s"
            self.story.step(f"kiosk {version} [bold]{one['name']}[/]: {size:.1f} MiB, {speed}, {said}")
        if not report["passed"]:
            self.story.step(f"[red]evaluation refused it:[/] {report['findings'][0]}")
            self.story.step(f"[red]overridden:[/] {override}, which is written into the signed manifest")
        return report

    def act_one(self) -> None:
        """Forge and enrol."""
        world, story = self.world, self.story
        story.act(
            1, "Forge and enrol", "A checkpoint becomes a signed release; five devices enrol, install it and answer."
        )
        world.make_keys()
        story.step("keys made: image roots 2 of 3, a family key for kiosk, and one online key for the fleet's director")
        report = self.forge("1.1", self.kiosk / "1.1")
        story.check("every variant of kiosk 1.1 passed its evaluation", report["passed"])
        self._verify("kiosk/1.1")
        world.start_depot()
        self.old_metadata = {
            p.name: p.read_bytes()
            for p in (world.depot_folder / "metadata").glob("*.json")
            if "timestamp" in p.name or "snapshot" in p.name
        }
        world.start_fleet()
        world.network.start()
        story.step(f"depot and fleet server are up; the page is [bold]{world.page}[/]")
        with ThreadPoolExecutor(2) as pool:
            made = pool.map(lambda pair: make_device(world, pair[1], number=pair[0]), enumerate(DEVICES, start=1))
            for device in made:
                start_device(world, device)
        with story.going_on("five devices make their keys and ask to be let in"):
            world.wait_for(
                lambda: sum(d["enrolment"] == "pending" for d in world.ask_fleet("devices")["items"]) == len(DEVICES),
                what="five devices asking to be let in",
                timeout_s=40,
            )
        world.run("device", "approve", *DEVICES)
        story.step("five devices (sensors simulated) approved by the operator")
        number = start_rollout(world, "kiosk/1.1", stages="100%", policy=self.policy.with_name("first.toml"))
        follow(world, story, number, until={"completed"}, timeout_s=60)
        story.check("all five devices have committed kiosk 1.1", set(committed(world).values()) == {"kiosk/1.1"})
        self._ask_what_was_never_seen()
        for device in world.devices.values():
            self.load.add(device.name, device.url)

    def _verify(self, release: str) -> None:
        """As a security officer does: from the depot and the root alone, without anybody's word."""
        checks = self.world.verify(release)["checks"]
        failed = [check["name"] for check in checks if check["verdict"] != "pass"]
        names = ", ".join(check["name"] for check in checks)
        self.story.check(
            f"everything {release} claims of itself is verified", not failed, saw=", ".join(failed) or names
        )

    def _ask_what_was_never_seen(self) -> None:
        device = next(iter(self.world.devices.values()))
        for question, words in NEVER_SEEN:
            text, release = ask(device.url, question)
            self.story.step(f"[italic]{question}[/] [bold]{text}[/] [dim]{release}[/]")
            self.story.check("a phrasing that training never saw is answered", words in text, saw=text)

    def act_two(self) -> None:
        """A good release, and a power cut in its middle."""
        world, story = self.world, self.story
        story.act(2, "A good release", "kiosk 1.2 goes to 1, 3, then 5 devices, judged by drawn blocks of old and new.")
        report = self.forge("1.2", self.kiosk / "1.2", replaces="1.1")
        story.check("no group of questions got worse than under kiosk 1.1", report["passed"] and report["replaces"])
        before = self.load.totals()
        cut = PowerCut(world)
        number = start_rollout(world, "kiosk/1.2", stages="1,3,5", policy=self.policy, seed="act two")
        page = follow(world, story, number, until={"completed", "rolled_back", "halted", "aborted"}, timeout_s=150)
        verdict = page["rollout"]["verdict"] or {}
        self.verdicts["kiosk 1.2"] = str(verdict.get("reason", page["rollout"]["reason"]))
        story.check(
            "kiosk 1.2 passed every stage", page["rollout"]["state"] == "completed", saw=page["rollout"]["reason"]
        )
        story.check("all five devices have committed it", set(committed(world).values()) == {"kiosk/1.2"})
        victim = cut.victim or "no agent"
        story.check(
            "an agent was killed while it wrote, and came back by itself",
            cut.victim is not None and f"{cut.victim} agent" in world.household.restarts,
            saw=f"{victim} killed with {cut.at_bytes} bytes on its disk",
        )
        after = self.load.totals()
        self._no_request_failed(after.asked - before.asked)

    def _no_request_failed(self, asked: int) -> None:
        total = self.load.totals()
        saw = "; ".join([f"{asked} asked", *total.failures[:2]])
        self.story.check("not one request failed", total.failed == 0, saw=saw)

    def act_three(self) -> None:
        """A release that talks nonsense, signed all the same."""
        world, story = self.world, self.story
        story.act(3, "A broken release", "kiosk 1.3 is scrambled, correctly signed, and packed against its evaluation.")
        broken = world.folder / "broken"
        world.python("demo/surgery.py", "scramble", str(self.kiosk / "1.2"), str(broken), "--seed", "3")
        report = self.forge("1.3", broken, override="the demo wants to see it stopped on a device")
        story.check("the forge refused it", not report["passed"])
        fetched = {name: blob_bytes(world, name) for name in DEVICES}
        number = start_rollout(world, "kiosk/1.3", stages="1,3,5", policy=self.policy, seed="act three")
        page = follow(world, story, number, until={"completed", "rolled_back", "halted", "aborted"}, timeout_s=60)
        self.verdicts["kiosk 1.3"] = page["rollout"]["reason"]
        story.check("the rollout halted by itself", page["rollout"]["state"] == "halted")
        canaries = [m["device"] for m in page["members"] if m["exposed"]]
        reasons = {event["reason"] for name in canaries for event in device_page(world, name)["events"]}
        story.check("one canary refused it in its trial", len(canaries) == 1 and "canonical_failed" in reasons)
        others = [n for n in DEVICES if blob_bytes(world, n) == fetched[n]]
        story.check("the other four never downloaded a byte of it", len(others) == len(DEVICES) - 1)
        story.check("every device still serves kiosk 1.2", set(committed(world).values()) == {"kiosk/1.2"})
        story.check(
            "the override is in the signed manifest",
            bool(page["rollout"]["overridden"]),
            saw=page["rollout"]["overridden"],
        )

    def act_four(self) -> None:
        """A release that is right, and slow."""
        world, story = self.world, self.story
        story.act(4, "A slow release", f"kiosk 1.4 gives the same answers through {SLOW_LAYERS} more layers.")
        slow = world.folder / "slow"
        world.python("demo/surgery.py", "slow", str(self.kiosk / "1.2"), str(slow), "--layers", str(SLOW_LAYERS))
        report = self.forge("1.4", slow)
        story.check("it passes its evaluation: absolute budgets cannot see it", report["passed"])
        number = start_rollout(world, "kiosk/1.4", stages="3,5", policy=self.policy, seed="act four")
        fetched: dict[str, int] = {}
        page = follow(world, story, number, until={"rolling_back", "rolled_back", "halted", "completed"}, timeout_s=120)
        fetched = {name: blob_bytes(world, name) for name in DEVICES}
        page = follow(world, story, number, until={"rolled_back", "halted", "completed"}, timeout_s=60)
        state, reason = page["rollout"]["state"], page["rollout"]["reason"]
        story.check("the gate took it back", state == "rolled_back", saw="" if state == "rolled_back" else reason)
        harmful = [v for v in page["verdicts"] if v["kind"] == "rollback"]
        story.check(
            "the verdict says why in words and numbers", bool(harmful), saw=harmful[-1]["reason"] if harmful else ""
        )
        self.verdicts["kiosk 1.4"] = harmful[-1]["reason"]
        story.check("every device serves kiosk 1.2 again", set(committed(world).values()) == {"kiosk/1.2"})
        again = {name: blob_bytes(world, name) - fetched[name] for name in DEVICES}
        story.check("going back downloaded nothing", not any(again.values()))
        releases = {r["id"]: r for r in world.ask_fleet("releases")}
        story.check("kiosk 1.4 is condemned", releases["kiosk/1.4"]["condemned"])
        self._no_request_failed(self.load.totals().asked)

    def act_five(self) -> None:
        """An attacker gets nowhere."""
        world, story = self.world, self.story
        story.act(5, "An attacker", "He owns the network, the fleet server and its signing key; no image key is there.")
        self.forge("1.5", self.kiosk / "1.2")
        attacker = Attacker(world, story, old_metadata=self.old_metadata)
        self.attacks += attacker.own_the_network()
        self.attacks += attacker.own_the_fleet_server()
        before = self.load.totals().asked
        story.check("every device still serves kiosk 1.2", set(committed(world).values()) == {"kiosk/1.2"})
        world.wait_for(lambda: self.load.totals().asked > before + 40, what="forty more answers", timeout_s=30)
        self._no_request_failed(self.load.totals().asked)


class PowerCut:
    """Kills the agent of the first device that fetches a blob with half of it written."""

    AFTER_BYTES = 1_000_000
    BYTES_PER_S = 1_500_000.0

    def __init__(self, world: World) -> None:
        self._world = world
        self.victim: str | None = None
        self.at_bytes = 0
        for name in DEVICES[2:]:
            world.network.rules[(name, "depot")] = self._rule

    def _rule(self, asked: Asked, reply: Reply) -> Reply:
        if self.victim is not None or "blobs/" not in asked.path:
            return reply
        reply.body = self._cut_in_the_middle(asked, slowed(reply.body, bytes_per_s=self.BYTES_PER_S))
        return reply

    async def _cut_in_the_middle(self, asked: Asked, body: Any) -> Any:
        sent = 0
        async for chunk in body:
            sent += len(chunk)
            yield chunk
            if self.victim is None and sent > self.AFTER_BYTES:
                self.victim = asked.device
                self.at_bytes = sum(
                    p.stat().st_size
                    for p in (self._world.folder / asked.device / "state/parts").glob("*")
                    if p.is_file()
                )
                os.kill(self._world.devices[asked.device].agent.pid, signal.SIGKILL)
