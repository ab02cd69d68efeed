"""Every page, as it is sent: what it says, whom it lets in, and that nothing a device says becomes markup."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import unescape

import pytest

from drupelet.fleet.app import build
from drupelet.fleet.read import Reader
from drupelet.web import pages, words
from tests.web.client import TestClient
from tests.web.shop import EVIL, OVERRIDE, REPORT_PAGE, Shop

Visit = Callable[..., TestClient]
PAGES = (
    "/", "/devices", "/devices/counter-1", "/devices/entrance-4", "/devices/street-7", "/devices/attic-6", "/rollouts",
    "/rollouts/1", "/rollouts/3", "/rollouts/4", "/rollouts/5", "/releases", "/releases/kiosk/1.3",
    "/releases/kiosk/1.4", "/audit",
)  # fmt: skip


def text_of(html: str) -> str:
    """What a reader sees, roughly."""
    return unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html)))


def word_of(html: str) -> str:
    found = re.search(r'name="word" value="([0-9a-f]{64})"', html)
    assert found
    return found.group(1)


@pytest.mark.parametrize("path", PAGES)
def test_page_is_sent_with_strict_headers_and_no_markup_of_devices(visit: Visit, path: str) -> None:
    answer = visit("reader").get(path)
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["cache-control"] == "no-store"
    assert EVIL not in answer.text
    assert not re.search(r"<script(?![^>]*(src=|application/json))", answer.text)
    assert not re.search(r"\sstyle=|\son\w+=", answer.text)


@pytest.mark.parametrize("path", PAGES)
def test_page_asks_for_a_token_and_comes_back(visit: Visit, path: str) -> None:
    answer = visit().get(path)
    assert answer.status_code == 303
    assert answer.headers["location"] == f"/sign-in?next={path}"


def test_overview_puts_first_what_needs_a_person(visit: Visit) -> None:
    text = text_of(visit("reader").get("/").text)
    attention = text.index("Needs attention")
    for said in ("kiosk/1.4 was taken back", "1 waiting for approval: street-7", "attic-6: not heard of"):
        assert attention < text.index(said) < text.index("Rollouts under way")
    assert "All of these devices are simulated." in text
    assert text.index("Rollouts under way") < text.index("By release") < text.index("By board")


@pytest.mark.parametrize("path", ["/", "/devices", "/devices/counter-1", "/rollouts/5"])
def test_what_is_simulated_says_so(visit: Visit, path: str) -> None:
    assert 'class="tag sim">simulated<' in visit("reader").get(path).text


def test_one_drupelet_a_device(visit: Visit) -> None:
    html = visit("reader").get("/").text
    assert len(re.findall(r'class="drupelet \w+"', html)) == 7
    assert 'class="drupelet silent" aria-label="attic-6: not heard of' in html
    assert 'class="drupelet new" aria-label="street-7' in html


def test_device_page_says_why_first(visit: Visit) -> None:
    text = text_of(visit("reader").get("/devices/attic-6").text)
    assert text.index("Why is this device not updated?") < text.index("not been heard of for 10 minutes")
    assert text.index("not been heard of for 10 minutes") < text.index("State")


def test_device_page_shows_refusals_with_reason_slots_and_telemetry(visit: Visit) -> None:
    html = visit("reader").get("/devices/entrance-4").text
    text = text_of(html)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "condemned : the order names kiosk 1.4" in text
    assert "undervoltage" in text
    assert re.search(r"Slot b: kiosk 1\.2 q8_0 serves committed", text)
    assert re.search(r"kiosk 1\.2 200 0 99 ms 110 ms 110 ms", text)
    assert "400" in text  # tokens a second


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (1, "Completed"),
        (3, "Halted: updates failed"),
        (4, "Rolled back from 1 device and condemned"),
        (5, "Stage 2 of 3: gathering evidence"),
    ],
)
def test_rollout_page_says_the_verdict_in_words(visit: Visit, number: int, said: str) -> None:
    assert said in text_of(visit("reader").get(f"/rollouts/{number}").text)


def test_rollout_page_shows_numbers_stages_and_decisions(visit: Visit, shop: Shop) -> None:
    text = text_of(visit("reader").get("/rollouts/4").text)
    verdict = shop.fleet.reader.rollout(4).rollout.verdict
    assert verdict is not None
    latency = verdict.findings[0]
    assert f"ROLLBACK {verdict.reason.removeprefix('ROLLBACK: ')}" in text
    numbers = f"{words.effect(latency)} {words.interval(latency)} {words.evidence(latency.peak)} 2,000"
    assert f"latency mandatory {numbers}" in text
    assert latency.peak > 2000
    assert re.search(r"Stage 1 up to 1 device ended here counter-1 taken back", text)
    assert "never reached" in text
    assert re.search(r"rolling back by gate", text)
    assert "Evidence over time" not in text_of(visit("reader").get("/rollouts/1").text)  # direct: no gate


def test_an_overridden_evaluation_and_a_condemnation_are_said_in_words(visit: Visit) -> None:
    client = visit("reader")
    for path in ("/releases/kiosk/1.3", "/rollouts/3", "/"):
        assert re.search(rf'class="override"[^>]*>[^<]*{OVERRIDE}', client.get(path).text), path
    assert "Condemned No device takes it any more: " in text_of(client.get("/releases/kiosk/1.4").text)


def test_release_page_shows_variants_quality_and_prompts(visit: Visit) -> None:
    text = text_of(visit("reader").get("/releases/kiosk/1.2").text)
    assert "q4_0 Q4_0 1.2 MB 41.2 MB 0.00890 0.0801 89.7%" in text
    assert "When do you open on Saturday?" in text


def test_selector_narrows_and_a_wrong_one_is_said(visit: Visit) -> None:
    client = visit("reader")
    found = client.get("/devices", params={"selector": "site=cafe"}).text
    assert "cafe-5" in found
    assert "counter-1" not in found
    wrong = client.get("/devices", params={"selector": f"=={EVIL}"})
    assert wrong.status_code == 400
    assert 'role="alert"' in wrong.text
    assert EVIL not in wrong.text


def test_audit_narrows_to_a_subject_and_goes_back_in_time(visit: Visit) -> None:
    client = visit("reader")
    text = text_of(client.get("/audit", params={"subject": "kiosk/1.4"}).text)
    assert "release condemned kiosk/1.4" in text
    assert "rollout 5" not in text
    assert client.get("/audit?before=3").text.count("<time") == 2
    assert client.get("/audit?before=nonsense").status_code == 200


@pytest.mark.parametrize(
    "path",
    ["/devices/nobody", "/rollouts/99", "/rollouts/0", "/rollouts/" + "9" * 30, "/releases/kiosk/9.9", "/nowhere"],
)
def test_what_there_is_not_is_a_page_too(visit: Visit, path: str) -> None:
    answer = visit("reader").get(path)
    assert answer.status_code == 404
    assert "Back to the fleet" in answer.text
    assert "content-security-policy" in answer.headers


def test_the_api_still_answers_with_problems(visit: Visit) -> None:
    answer = visit("reader").get("/api/v1/nowhere")
    assert answer.status_code == 404
    assert answer.json()["where"] == "/api/v1/nowhere"


def test_signing_in_and_out(visit: Visit, shop: Shop) -> None:
    client = visit()
    origin = {"origin": "http://fleet.test"}
    form = {"token": f" {shop.tokens['operator']}\n", "next": "/rollouts/5"}
    answer = client.post("/sign-in", data=form, headers=origin)
    assert (answer.status_code, answer.headers["location"]) == (303, "/rollouts/5")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    page = client.get("/rollouts/5").text
    assert 'id="pause"' in page
    out = client.post("/sign-out", data={"word": word_of(page)}, headers=origin)
    assert out.headers["location"] == "/sign-in"
    assert client.get("/").status_code == 303


@pytest.mark.parametrize("wanted", ["//evil.test", "https://evil.test", "/\\evil.test", "javascript:alert(1)", "/a\nb"])
def test_signing_in_never_leads_elsewhere(visit: Visit, shop: Shop, wanted: str) -> None:
    form = {"token": shop.tokens["reader"], "next": wanted}
    answer = visit().post("/sign-in", data=form, headers={"origin": "http://fleet.test"})
    assert answer.headers["location"] == "/"


@pytest.mark.parametrize("token", ["", "drup_wrong", "ü", "x" * 600])
def test_a_wrong_token_is_said_and_not_kept(visit: Visit, token: str) -> None:
    answer = visit().post("/sign-in", data={"token": token}, headers={"origin": "http://fleet.test"})
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers
    assert "drupelet fleet token create" in answer.text


def test_a_reader_sees_no_buttons_and_may_not_steer(visit: Visit, shop: Shop) -> None:
    client = visit("reader")
    page = client.get("/rollouts/5").text
    assert 'id="pause"' not in page
    assert "scope operate" in page
    answer = client.post(
        "/rollouts/5/pause", data={"word": word_of(page)}, headers={"origin": "http://fleet.test"}
    )  # fmt: skip
    assert answer.status_code == 403
    assert shop.fleet.reader.rollout(5).rollout.state == "judging"


@pytest.mark.parametrize(
    ("origin", "keep_word"),
    [({}, 1), ({"origin": "http://evil.test"}, 1), ({"origin": "null"}, 1), ({"origin": "http://fleet.test"}, 0)],
)  # fmt: skip
def test_forms_of_other_sites_do_nothing(visit: Visit, shop: Shop, origin: dict[str, str], keep_word: int) -> None:
    client = visit("operator")
    word = word_of(client.get("/rollouts/5").text) if keep_word else "0" * 64
    answer = client.post("/rollouts/5/pause", data={"word": word}, headers=origin)
    assert answer.status_code == 403
    assert not [row for row in shop.fleet.reader.audit(subject="rollout 5").items if row.action == "rollout.pause"]


@pytest.mark.parametrize("path", ["/rollouts/5/explode", "/devices/street-7/explode"])
def test_unknown_verbs_do_nothing(visit: Visit, path: str) -> None:
    assert visit("operator").post(path, headers={"origin": "http://fleet.test"}).status_code == 404


def test_a_form_too_long_is_refused(visit: Visit) -> None:
    answer = visit("operator").post("/rollouts/5/pause", content=b"x" * 20_000, headers={"origin": "http://fleet.test"})
    assert answer.status_code == 413


def test_assets_are_for_ever_and_of_one_content(visit: Visit) -> None:
    client = visit("reader")
    page = client.get("/rollouts/5").text
    found = re.findall(r'(?:src|href)="(/assets/[0-9a-f]{16}/[\w.-]+)"', page)
    assert {path.rpartition("/")[2] for path in found} >= {"drupelet.css", "live.js", "plotly.min.js", "chart.js"}
    for path in set(found):
        answer = visit().get(path)  # no token: nothing in them is the fleet's
        assert answer.status_code == 200, path
        assert "immutable" in answer.headers["cache-control"]
        assert answer.headers["content-encoding"] == "gzip"
    assert client.get("/assets/0000000000000000/live.js").status_code == 404
    assert client.get("/assets/0000000000000000/../../app.py").status_code == 404


def test_anybody_reads_if_the_server_says_so(shop: Shop) -> None:
    from dataclasses import replace

    desks = shop.fleet.desks()
    desks = replace(desks, door=replace(desks.door, anonymous_read=True))
    app = build(shop.fleet, mounts=[("/", pages(desks, clock=lambda: shop.now))])
    page = TestClient(app, base_url="http://fleet.test").get("/rollouts/5")
    assert page.status_code == 200
    assert 'id="pause"' not in page.text


def test_an_unforeseen_error_is_one_sentence(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_self: Reader) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(Reader, "overview", broken)
    app = build(shop.fleet, mounts=[("/", pages(shop.fleet.desks(), clock=lambda: shop.now))])
    client = TestClient(app, base_url="http://fleet.test", raise_server_exceptions=False)
    client.cookies.set("drupelet_token", shop.tokens["reader"])
    answer = client.get("/")
    assert answer.status_code == 500
    assert "its log says why" in answer.text
    assert "secret detail" not in answer.text


def test_a_report_is_sent_in_a_sandbox_and_kept_by_its_digest(visit: Visit) -> None:
    client = visit("reader")
    assert 'href="/releases/kiosk/1.2/report"' in client.get("/releases/kiosk/1.2").text
    answer = client.get("/releases/kiosk/1.2/report")
    assert answer.text == REPORT_PAGE
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("sandbox allow-scripts; default-src 'none'")
    assert "allow-same-origin" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    again = client.get("/releases/kiosk/1.2/report", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("release", ["kiosk/1.1", "kiosk/9.9"])
def test_a_release_without_a_report_says_so(visit: Visit, release: str) -> None:
    answer = visit("reader").get(f"/releases/{release}/report")
    assert answer.status_code == 404
    assert "report" not in visit("reader").get("/releases/kiosk/1.1").text


def test_a_report_is_for_readers_only_and_its_loss_is_said(visit: Visit, shop: Shop) -> None:
    assert visit().get("/releases/kiosk/1.2/report").status_code == 303
    kept = dict(shop.images.blobs)
    shop.images.blobs.clear()
    try:
        answer = visit("reader").get("/releases/kiosk/1.2/report")
    finally:
        shop.images.blobs.update(kept)
    assert answer.status_code >= 400
    assert "does not lie in the depot" in text_of(answer.text)
