"""A registry that refuses, stutters, lies and leads astray: one clear line each, and no secret out of place."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from drupelet.core.errors import BadInput, DrupeletError, NotAllowed, NotFound
from drupelet.core.names import Digest
from drupelet.core.states import Reason
from drupelet.depot import BlobRefused, NoBlob, SourceUnreachable
from drupelet.depot.errors import BadAddress, StoreRefused
from drupelet.depot.oci import Reference, Registry
from drupelet.depot.oci.credentials import Credentials, find_credentials, refuse_one_password_for_two
from drupelet.depot.oci.session import ATTEMPTS_MAX, Session
from drupelet.wire.codec import TooLarge
from tests.depot.test_stores import Bytes
from tests.fakes.registry_server import PASSWORD, USER
from tests.fakes.scripted_server import Answer, Asked, Scripted, scripted_server

BODY = b"0123456789" * 1000
NAME = Digest.of_hex(hashlib.sha256(BODY).hexdigest())
WEB = {"Content-Type": "text/html; charset=utf-8"}
CREDENTIALS = Credentials(USER, PASSWORD)


def client(server: Scripted, waits: list[float] | None = None, credentials: Credentials | None = None) -> Registry:
    slept = waits if waits is not None else []
    reference = Reference.parse(f"oci://{server.host}/models/kiosk")
    return Registry(Session(reference.repository, credentials=credentials, sleep=slept.append), piece_bytes=4000)


def code(status: int, name: str) -> Answer:
    return Answer(status, json.dumps({"errors": [{"code": name, "message": PASSWORD}]}).encode())


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        (code(401, "UNAUTHORIZED"), StoreRefused, "wants other credentials, or some (401 UNAUTHORIZED)"),
        (code(403, "DENIED"), StoreRefused, "do not allow this (403 DENIED)"),
        (code(404, "NAME_UNKNOWN"), NotFound, "no such version in this repository"),
        (Answer(429), SourceUnreachable, "asks for fewer requests (429)"),
        (code(500, "UNKNOWN"), SourceUnreachable, "the registry answers 500 UNKNOWN"),
        (Answer(200, b"<html>Log in</html>", WEB), SourceUnreachable, "a web page came back"),
        (Answer(200, b"[]"), SourceUnreachable, "not a manifest"),
        (Answer(200, b"{" * 100_000), SourceUnreachable, "not a manifest"),
        (Answer(200, b"x" * 5_000_000), TooLarge, "more than the"),
        (Answer(200, b'{"schemaVersion":2}', {"Content-Length": "1000"}, cut=10), SourceUnreachable, "cut"),
        (Answer(302, b"", {"Location": "/v2/elsewhere"}), SourceUnreachable, "redirects"),
        (Answer(302, b"", {"Location": "ftp://host/x"}), SourceUnreachable, "something unprotected"),
    ],
    ids=lambda value: str(getattr(value, "status", ""))[:10],
)
def test_what_comes_in_place_of_a_manifest(answer: Answer, error: type[DrupeletError], says: str) -> None:
    with scripted_server(lambda _: answer) as server, pytest.raises(error) as caught:
        client(server).manifest("1.0").decoded()
    line = caught.value.line()
    assert says in line
    assert "\n" not in line
    assert PASSWORD not in line


@pytest.mark.parametrize(
    ("answer", "error", "reason"),
    [
        (Answer(200, BODY[:-1]), BlobRefused, Reason.TRUNCATED),
        (Answer(200, BODY + b"more"), BlobRefused, Reason.TOO_LARGE),
        (Answer(200, BODY[:-1] + b"x"), BlobRefused, Reason.DIGEST_MISMATCH),
        (Answer(200, BODY, cut=5000), SourceUnreachable, Reason.SERVER_UNREACHABLE),
        (Answer(200, b"<html>", WEB), SourceUnreachable, Reason.SERVER_UNREACHABLE),
        (code(404, "BLOB_UNKNOWN"), NoBlob, Reason.SERVER_UNREACHABLE),
        (Answer(416), BlobRefused, Reason.TRUNCATED),
        (Answer(500), SourceUnreachable, Reason.SERVER_UNREACHABLE),
    ],
    ids=lambda value: str(getattr(value, "value", ""))[:20],
)
def test_what_comes_in_place_of_a_blob(answer: Answer, error: type[DrupeletError], reason: Reason) -> None:
    with scripted_server(lambda _: answer) as server, pytest.raises(error) as caught:
        client(server).read_blob(NAME, size=len(BODY))
    assert caught.value.reason is reason  # type: ignore[attr-defined]


def test_a_manifest_of_another_digest_is_refused() -> None:
    with scripted_server(lambda _: Answer(200, b"{}")) as server, pytest.raises(BlobRefused) as caught:
        client(server).manifest(NAME.text)
    assert caught.value.reason is Reason.DIGEST_MISMATCH


def test_a_registry_that_is_busy_is_asked_again_when_it_says() -> None:
    waits: list[float] = []
    answers = [Answer(429, headers={"Retry-After": "7"}), Answer(503), Answer(200, b"{}")]
    with scripted_server(lambda _: answers[len(server.asked) - 1]) as server:
        assert client(server, waits).manifest("1.0").data == b"{}"
    assert waits == [7.0, 1.0]


def test_a_registry_that_stays_busy_is_given_up_after_a_bounded_wait() -> None:
    waits: list[float] = []
    with scripted_server(lambda _: Answer(429, headers={"Retry-After": "5"})) as server:
        with pytest.raises(SourceUnreachable):
            client(server, waits).manifest("1.0")
        assert len(server.asked) == ATTEMPTS_MAX
    assert sum(waits) < 60
    with scripted_server(lambda _: Answer(429, headers={"Retry-After": "86400"})) as server:
        with pytest.raises(SourceUnreachable, match="429"):
            client(server).manifest("1.0")
        assert len(server.asked) == 1


def test_a_registry_that_is_not_there() -> None:
    with scripted_server(lambda _: Answer()) as server:
        gone = client(server)
    with pytest.raises(SourceUnreachable, match="cannot be reached"):
        gone.manifest("1.0")


def bearer(realm: str) -> Answer:
    challenge = f'Bearer realm="{realm}",service="registry.test",scope="repository:models/kiosk:pull"'
    return Answer(401, headers={"WWW-Authenticate": challenge})


@pytest.mark.parametrize("field", ["token", "access_token"])
def test_a_token_is_fetched_with_the_password_and_used_without_it(field: str) -> None:
    def answer(asked: Asked) -> Answer:
        if asked.path.startswith("/token"):
            assert asked.headers["authorization"] == CREDENTIALS.basic
            assert "scope=repository%3Amodels%2Fkiosk%3Apull" in asked.path
            return Answer(200, json.dumps({field: "a.b.c"}).encode())
        if asked.headers.get("authorization") != "Bearer a.b.c":
            return bearer(f"{server.address}/token")
        return Answer(200, b"{}")

    with scripted_server(answer) as server:
        there = client(server, credentials=CREDENTIALS)
        assert there.manifest("1.0").data == b"{}"
        assert there.manifest("1.0").data == b"{}"
        assert [asked.path.partition("?")[0] for asked in server.asked] == [
            "/v2/models/kiosk/manifests/1.0",
            "/token",
            "/v2/models/kiosk/manifests/1.0",
            "/v2/models/kiosk/manifests/1.0",
        ]


def test_an_expired_token_is_replaced() -> None:
    tokens: list[str] = []

    def answer(asked: Asked) -> Answer:
        if asked.path.startswith("/token"):
            tokens.append(f"t{len(tokens)}")
            return Answer(200, json.dumps({"token": tokens[-1]}).encode())
        known = tokens[-1:] and len(server.asked) != 5  # the fifth time the token has expired
        good = known and asked.headers.get("authorization") == f"Bearer {tokens[-1]}"
        return Answer(200, b"{}") if good else bearer(f"{server.address}/token")

    with scripted_server(answer) as server:
        there = client(server)
        for _ in range(3):
            there.manifest("1.0")
    assert tokens == ["t0", "t1"]


@pytest.mark.parametrize("answer", [Answer(200, b"{}"), Answer(200, b"<"), Answer(200, b'{"token":"a b\\r\\nX: y"}')])
def test_an_answer_without_a_token_is_said(answer: Answer) -> None:
    def rude(asked: Asked) -> Answer:
        return answer if asked.path.startswith("/token") else bearer(f"{server.address}/token")

    with scripted_server(rude) as server, pytest.raises(SourceUnreachable, match="no token"):
        client(server).manifest("1.0")


def test_a_wrong_password_is_tried_once() -> None:
    refuse = Answer(401, headers={"WWW-Authenticate": 'Basic realm="r"'})
    with scripted_server(lambda _: refuse) as server:
        with pytest.raises(StoreRefused, match="wants other credentials") as caught:
            client(server, credentials=CREDENTIALS).manifest("1.0")
        assert [asked.headers.get("authorization") for asked in server.asked] == [None, CREDENTIALS.basic]
    assert PASSWORD not in caught.value.line()


def test_credentials_do_not_follow_a_redirect_to_another_host() -> None:
    def here(asked: Asked) -> Answer:
        if asked.headers.get("authorization") != CREDENTIALS.basic:
            return Answer(401, headers={"WWW-Authenticate": 'Basic realm="r"'})
        return Answer(307, headers={"Location": f"{there.address}/blob?signature=s"})

    def elsewhere(asked: Asked) -> Answer:
        start = int(asked.headers.get("range", "bytes=0-")[6:-1])
        if start:
            span = f"bytes {start}-{len(BODY) - 1}/{len(BODY)}"
            return Answer(206, BODY[start:], {"Content-Range": span})
        return Answer(200, BODY)

    with scripted_server(elsewhere) as there, scripted_server(here) as server:
        found = client(server, credentials=CREDENTIALS)
        assert b"".join(found.open(NAME, offset=0, size=len(BODY))) == BODY
        assert b"".join(found.open(NAME, offset=9000, size=len(BODY))) == BODY[9000:]
        assert all("authorization" not in asked.headers for asked in there.asked)


def test_a_password_is_not_sent_where_it_is_not_protected() -> None:
    repository = Reference.parse("oci://registry.example/kiosk").repository
    session = Session(repository, credentials=CREDENTIALS)

    class Said:
        def __init__(self) -> None:
            self.headers = {"WWW-Authenticate": 'Bearer realm="http://registry.example/token"'}

    with pytest.raises(SourceUnreachable, match="unprotected"):
        session._signed_in(Said(), "repository:kiosk:pull")  # type: ignore[arg-type]


def test_an_upload_is_not_sent_to_another_host() -> None:
    def answer(asked: Asked) -> Answer:
        if asked.method == "POST":
            return Answer(202, headers={"Location": "http://elsewhere.invalid/upload"})
        return Answer(404)

    with scripted_server(answer) as server, pytest.raises(SourceUnreachable, match="which was not asked for"):
        client(server).put_blob(NAME, Bytes(BODY), size=len(BODY))


class Uploading:
    """A registry that takes uploads; `trouble` may answer a request in its stead."""

    def __init__(self, trouble: Callable[[Asked, Uploading], Answer | None]) -> None:
        self.trouble = trouble
        self.got = bytearray()
        self.patches = 0

    def __call__(self, asked: Asked) -> Answer:
        said = {"Location": "/v2/models/kiosk/blobs/uploads/1?_state=s"}
        if asked.method == "PATCH":
            self.patches += 1
        answer = self.trouble(asked, self)
        if answer is not None:
            return answer
        match asked.method:
            case "POST":
                return Answer(202, headers=said)
            case "PATCH":
                self.got += asked.body
                return Answer(202, headers={**said, "Range": f"0-{len(self.got) - 1}"})
            case "GET":
                return Answer(204, headers={**said, "Range": f"0-{max(0, len(self.got) - 1)}"})
            case "PUT":
                right = hashlib.sha256(self.got).hexdigest() == NAME.hex
                return Answer(201 if right else 400, headers={"Docker-Content-Digest": NAME.text})
            case _:
                return Answer(404)


def test_a_piece_that_was_cut_goes_on_where_it_was_cut() -> None:
    def cut(asked: Asked, here: Uploading) -> Answer | None:
        if asked.method == "PATCH" and here.patches == 2:
            here.got += asked.body[:1500]
            return Answer(500)
        return None

    taking = Uploading(cut)
    with scripted_server(taking) as server:
        assert client(server).put_blob(NAME, Bytes(BODY), size=len(BODY))
        spans = [asked.headers["content-range"] for asked in server.asked if asked.method == "PATCH"]
    assert bytes(taking.got) == BODY
    assert spans == ["0-3999", "4000-7999", "5500-7999", "8000-9999"]


def test_a_registry_that_never_takes_a_piece_is_given_up() -> None:
    never = Uploading(lambda asked, _: Answer(500) if asked.method == "PATCH" else None)
    with scripted_server(never) as server, pytest.raises(SourceUnreachable, match="500"):
        client(server).put_blob(NAME, Bytes(BODY), size=len(BODY))
    assert never.patches < 10


def test_a_registry_that_confirms_another_digest_is_not_believed() -> None:
    def lie(asked: Asked, _: Uploading) -> Answer | None:
        other = {"Docker-Content-Digest": "sha256:" + "0" * 64}
        return Answer(201, headers=other) if asked.method == "PUT" else None

    with scripted_server(Uploading(lie)) as server:
        with pytest.raises(BlobRefused, match="confirms"):
            client(server).put_blob(NAME, Bytes(BODY), size=len(BODY))
        with pytest.raises(BlobRefused, match="confirms"):
            client(server).put_manifest(b"{}", media_type="x", tag="1.0")


@pytest.mark.parametrize(
    "text",
    [
        "registry.example/kiosk", "oci://", "oci://host", "oci://host/", "oci://host/UPPER", "oci://host/a//b",
        "oci://host/../etc", "oci://us er@host/a", "oci://host/a:", "oci://host/a:b c", "oci://host/a@sha256:12",
        "oci://host/a?b=c", "http://host/a", "oci://host:port/a", "oci://host/" + "a" * 256,
    ],
)  # fmt: skip
def test_an_address_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BadAddress, match="for example oci://"):
        Reference.parse(text)


def test_only_this_machine_is_spoken_to_without_protection() -> None:
    bases = {
        text: Reference.parse(text).repository.base
        for text in (
            "oci://127.0.0.1:5000/a",
            "oci://localhost/a",
            "oci://[::1]:5000/a",
            "oci://registry.example/a",
            "oci+http://registry.example:5000/a",
            "oci://127.0.0.1.example/a",
            "oci://docker.io/ai/a",
        )
    }
    assert list(bases.values()) == [
        "http://127.0.0.1:5000",
        "http://localhost",
        "http://[::1]:5000",
        "https://registry.example",
        "http://registry.example:5000",
        "https://127.0.0.1.example",
        "https://registry-1.docker.io",
    ]


def docker_config(folder: Path, value: object, *, mode: int = 0o600) -> dict[str, str]:
    folder.mkdir(exist_ok=True)
    path = folder / "config.json"
    path.write_text(json.dumps(value) if not isinstance(value, str) else value)
    path.chmod(mode)
    return {"DOCKER_CONFIG": str(folder)}


AUTH = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


def test_where_credentials_are_found(tmp_path: Path) -> None:
    environment = docker_config(tmp_path / "docker", {"auths": {"registry.example": {"auth": AUTH}}})
    assert find_credentials("registry.example", environment=environment, home=tmp_path) == CREDENTIALS
    assert find_credentials("other.example", environment=environment, home=tmp_path) is None
    assert find_credentials("registry.example", environment={}, home=tmp_path) is None
    own = {**environment, "DRUPELET_OCI_USERNAME": "me", "DRUPELET_OCI_PASSWORD": "mine"}
    assert find_credentials("registry.example", environment=own, home=tmp_path) == Credentials("me", "mine")
    bound = {**own, "DRUPELET_OCI_REGISTRY": "other.example"}
    assert find_credentials("registry.example", environment=bound, home=tmp_path) == CREDENTIALS
    assert find_credentials("other.example", environment=bound, home=tmp_path) == Credentials("me", "mine")
    podmans = {"REGISTRY_AUTH_FILE": str(tmp_path / "docker" / "config.json")}
    assert find_credentials("registry.example", environment=podmans, home=tmp_path) == CREDENTIALS
    assert PASSWORD not in repr(CREDENTIALS)


def test_one_password_is_not_shown_to_two_registries() -> None:
    environment = {"DRUPELET_OCI_USERNAME": "me", "DRUPELET_OCI_PASSWORD": "mine"}
    refuse_one_password_for_two("a.example", "a.example", environment=environment)
    refuse_one_password_for_two("a.example", "b.example", environment={})
    with pytest.raises(BadInput, match="DRUPELET_OCI_REGISTRY") as caught:
        refuse_one_password_for_two("a.example", "b.example", environment=environment)
    assert "mine" not in caught.value.line()
    refuse_one_password_for_two(
        "a.example", "b.example", environment={**environment, "DRUPELET_OCI_REGISTRY": "a.example"}
    )


def test_what_refers_is_listed_by_a_registry_that_knows_how() -> None:
    """docker-registry does not, so this one is played: it answers OCI-Subject, and no list is kept for it."""
    entry = {"mediaType": "m", "digest": NAME.text, "size": 2, "artifactType": "application/x"}

    def answer(asked: Asked) -> Answer:
        if asked.method == "PUT":
            return Answer(201, headers={"OCI-Subject": NAME.text})
        assert asked.path.endswith(f"/referrers/{NAME}")
        return Answer(200, json.dumps({"schemaVersion": 2, "manifests": [entry, 3]}).encode())

    with scripted_server(answer) as server:
        there = client(server)
        there.attach(b"{}", subject=NAME, descriptor={})
        assert there.referrers(NAME) == (entry,)
        assert [asked.method for asked in server.asked] == ["PUT", "GET"]


def test_credentials_that_others_may_read_or_that_are_none_are_refused(tmp_path: Path) -> None:
    open_to_all = docker_config(tmp_path / "docker", {"auths": {}}, mode=0o644)
    with pytest.raises(NotAllowed, match="chmod 600"):
        find_credentials("registry.example", environment=open_to_all, home=tmp_path)
    for value in ("{", "[]", {"auths": {"registry.example": {"auth": "%%%"}}}, {"auths": {"registry.example": 3}}):
        with pytest.raises(BadInput, match="docker login"):
            find_credentials("registry.example", environment=docker_config(tmp_path / "docker", value), home=tmp_path)
    with pytest.raises(BadInput, match="set both"):
        find_credentials("registry.example", environment={"DRUPELET_OCI_USERNAME": "me"}, home=tmp_path)
