"""Provenance, bill of materials and model signature: what they say, that others can read them, and what damage does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.v1 import statement as intoto
from in_toto_attestation.v1 import statement_pb2
from securesystemslib.signer import CryptoSigner

from drupelet.core.errors import BadInput, Untrusted
from drupelet.forge.attest.bom import bill_of_materials, running_packages, validate, variant_digests
from drupelet.forge.attest.builder import Builder, builder_of
from drupelet.forge.attest.dsse import seal, unseal
from drupelet.forge.attest.openssf import sign_model, signed_files
from drupelet.forge.attest.statement import provenance, read_statement, subjects
from drupelet.forge.recipe import ModelCard
from tests.fakes.packages import describe, digest_of, draft_of, steps_of, write_package

FILES = {"q4_0.gguf": b"four", "q8_0.gguf": b"eight"}
DRAFT = draft_of("1.1", FILES)
STATEMENT = describe(DRAFT, FILES)["provenance"]
BOM = describe(DRAFT, FILES)["bom"]
ED25519 = (
    b"-----BEGIN PUBLIC KEY-----\n"
    b"MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n"
    b"-----END PUBLIC KEY-----\n"
)
HEX = {name: digest_of(data).hex for name, data in FILES.items()}


def test_every_step_is_told_with_its_tool_parameters_inputs_and_outputs() -> None:
    definition = json.loads(STATEMENT)["predicate"]["buildDefinition"]
    convert, evaluate = definition["internalParameters"]["steps"]
    assert convert["tool"] == {"name": "llama-quantize b4242", "digest": {"sha256": digest_of(b"the program").hex}}
    assert convert["parameters"] == {"q4_0": "q4_0"}
    assert [one["name"] for one in convert["inputs"]] == ["checkpoint", "recipe"]
    assert {one["name"]: one["digest"]["sha256"] for one in convert["outputs"]} == HEX
    assert convert["startedOn"] == "2026-11-23T11:59:51.123Z"
    assert evaluate["name"] == "evaluate"
    assert [one["name"] for one in definition["resolvedDependencies"]] == [
        "checkpoint",
        "llama-quantize b4242",
        "recipe",
    ]
    assert subjects(read_statement(STATEMENT)) == HEX


def test_in_totos_own_types_take_the_statement() -> None:
    parsed = json_format.Parse(STATEMENT, statement_pb2.Statement())
    intoto.Statement.copy_from_pb(parsed).validate()
    predicate = json_format.ParseDict(json_format.MessageToDict(parsed.predicate), provenance_pb2.Provenance())
    assert predicate.run_details.builder.id == "urn:drupelet:builder:local"
    assert len(predicate.build_definition.resolved_dependencies) == 3


def test_the_same_build_gives_the_same_bytes() -> None:
    assert describe(DRAFT, FILES) == {"provenance": STATEMENT, "bom": BOM}
    other = draft_of("1.2", FILES)
    assert describe(other, FILES)["bom"] != BOM


@pytest.mark.parametrize(
    ("environment", "builder"),
    [
        ({}, Builder("urn:drupelet:builder:local")),
        (
            {
                "GITHUB_ACTIONS": "true",
                "GITHUB_SERVER_URL": "https://github.example",
                "GITHUB_REPOSITORY": "shop/models",
                "GITHUB_RUN_ID": "42",
            },
            Builder("https://github.example/shop/models", "https://github.example/shop/models/actions/runs/42"),
        ),
        (
            {
                "GITLAB_CI": "true",
                "CI_PROJECT_URL": "https://gitlab.example/shop",
                "CI_JOB_URL": "https://gitlab.example/j/7",
            },
            Builder("https://gitlab.example/shop", "https://gitlab.example/j/7"),
        ),
        (
            {"JENKINS_URL": "https://ci/", "JOB_URL": "https://ci/job/shop/", "BUILD_URL": "https://ci/job/shop/9/"},
            Builder("https://ci/job/shop", "https://ci/job/shop/9"),
        ),
        ({"GITHUB_ACTIONS": "true"}, Builder("urn:drupelet:builder:local")),
        ({"GITLAB_CI": "true", "CI_PROJECT_URL": "nonsense"}, Builder("urn:drupelet:builder:local")),
    ],
)
def test_who_builds_is_what_the_ci_system_says(environment: dict[str, str], builder: Builder) -> None:
    assert builder_of(environment) == builder
    assert builder_of(environment, named="urn:mine") == Builder("urn:mine", builder.run)
    details = json.loads(provenance(DRAFT, steps_of(FILES), builder=builder_of(environment)))["predicate"]["runDetails"]
    assert details["builder"]["id"] == builder.id
    assert details["metadata"].get("invocationId", "") == builder.run


def test_the_bill_says_model_data_variants_tools_and_packages() -> None:
    document = validate(BOM)
    model = document["metadata"]["component"]
    card = model["modelCard"]
    assert model["licenses"] == [{"expression": "Apache-2.0"}]
    assert card["modelParameters"]["modelArchitecture"] == "LlamaForCausalLM"
    assert card["modelParameters"]["datasets"] == [{"ref": "data:1"}]
    assert card["considerations"]["technicalLimitations"] == ["Knows one shop."]
    assert {one["slice"] for one in card["quantitativeAnalysis"]["performanceMetrics"]} == set(FILES)
    kinds = {one["bom-ref"]: one["type"] for one in document["components"]}
    assert kinds["data:1"] == "data"
    assert kinds["tool:llama-quantize b4242"] == "application"
    assert kinds["pkg:pypi/numpy@2.4.6"] == "library"
    assert variant_digests(document) == HEX


def test_a_recipe_without_a_card_makes_a_valid_bill_too() -> None:
    data = bill_of_materials(DRAFT, (), card=ModelCard(), architecture="x", packages={})
    assert "licenses" not in validate(data)["metadata"]["component"]


def test_the_packages_are_those_that_run() -> None:
    found = running_packages()
    assert {"msgspec", "pytest", "cryptography"} <= set(found)
    assert "drupelet" not in found


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not JSON"),
        (BOM[:-300], "cut short"),
        (b"\xff", "not JSON"),
        (b"{}", "not CycloneDX 1.6"),
        (b"[]", "not CycloneDX 1.6"),
        (b"[" * 5000, "not JSON"),
        (BOM.replace(b'"1.6"', b'"1.4"'), "not CycloneDX 1.6"),
        (BOM.replace(b"machine-learning-model", b"spell"), "not CycloneDX 1.6"),
        (BOM.replace(b'"SHA-256"', b'"ROT-13"'), "not CycloneDX 1.6"),
    ],
)
def test_a_damaged_bill_is_none(data: bytes, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        validate(data)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not JSON"),
        (STATEMENT[:-300], "cut short"),
        (b"\xff", "not JSON"),
        (b"[" * 5000, "not JSON"),
        (b"{}", "not an in-toto"),
        (b"[]", "not an in-toto"),
        (STATEMENT.replace(b"provenance/v1", b"provenance/v0.2"), "not an in-toto"),
        (STATEMENT.replace(b'"subject"', b'"object"'), "no subject"),
    ],
)
def test_a_damaged_statement_is_none(data: bytes, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        read_statement(data)


def test_an_envelope_holds_for_the_keys_that_signed_it() -> None:
    signer, other = CryptoSigner.generate_ed25519(), CryptoSigner.generate_ecdsa()
    sealed = seal(STATEMENT, [signer])
    assert unseal(sealed, [other.public_key, signer.public_key]) == (STATEMENT, (signer.public_key.keyid,))
    with pytest.raises(Untrusted, match="no key of the family"):
        unseal(sealed, [other.public_key])
    with pytest.raises(Untrusted):
        unseal(
            sealed.replace(json.loads(sealed)["signatures"][0]["sig"][:8].encode(), b"AAAAAAAA"), [signer.public_key]
        )


@pytest.mark.parametrize("damage", [b"", b"{}", b"[]", b'{"payload": 1, "payloadType": 2, "signatures": 3}', b"\xff"])
def test_a_damaged_envelope_is_none(damage: bytes) -> None:
    with pytest.raises(BadInput, match="not a DSSE envelope"):
        unseal(damage, [CryptoSigner.generate_ed25519().public_key])
    whole = seal(STATEMENT, [CryptoSigner.generate_ed25519()])
    with pytest.raises(BadInput, match="cut short"):
        unseal(whole[:-40], [])
    with pytest.raises(BadInput, match="not of an in-toto"):
        unseal(whole.replace(b"in-toto", b"ex-toto"), [])


def pem(signer: CryptoSigner) -> bytes:
    return str(signer.public_key.to_dict()["keyval"]["public"]).encode()


def test_the_stock_tool_verifies_a_model_signature(tmp_path: Path) -> None:
    """As its users would: OpenSSF's own command on the files of a package."""
    manifest = write_package(tmp_path / "package")
    signer = CryptoSigner.generate_ecdsa()
    (tmp_path / "model.sig").write_bytes(sign_model(manifest, signer, public=pem(signer)))
    (tmp_path / "model-signing.pub").write_bytes(pem(signer))
    command = [
        sys.executable,
        "-m",
        "model_signing",
        "verify",
        "key",
        str(tmp_path / "package"),
        "--ignore_unsigned_files",
    ]
    command += ["--signature", str(tmp_path / "model.sig"), "--public_key", str(tmp_path / "model-signing.pub")]
    good = subprocess.run(command, capture_output=True, text=True, check=False)
    assert good.returncode == 0, good.stderr
    (tmp_path / "package" / "q4_0.gguf").write_bytes(b"another model")
    bad = subprocess.run(command, capture_output=True, text=True, check=False)
    assert bad.returncode != 0
    assert "q4_0.gguf" in bad.stdout + bad.stderr


def test_a_model_signature_names_the_variants(tmp_path: Path) -> None:
    manifest = write_package(tmp_path / "package")
    signer, other = CryptoSigner.generate_ecdsa(), CryptoSigner.generate_ecdsa()
    signature = sign_model(manifest, signer, public=pem(signer))
    assert set(signed_files(signature, public=pem(signer))) == {"q4_0.gguf", "q8_0.gguf"}
    with pytest.raises(Untrusted, match="does not hold"):
        signed_files(signature, public=pem(other))
    for damage in (b"", b"{}", b"[]", signature[:-50]):
        with pytest.raises(BadInput, match="not a model signature"):
            signed_files(damage, public=pem(signer))
    with pytest.raises(BadInput, match="ECDSA"):
        sign_model(manifest, signer, public=ED25519)
    with pytest.raises(BadInput, match="not a public key"):
        signed_files(signature, public=b"nonsense")
