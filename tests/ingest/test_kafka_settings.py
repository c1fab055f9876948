"""TLS and SASL: the settings reach kafka-python, real secured listeners take them, and no secret is ever shown."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from ingest.kafka import client_options
from ingest.landing import land
from ingest.sources import KafkaSource
from ingest.writer import Writer
from schemas.errors import BrokerError, ConfigurationError
from schemas.settings import Settings, load_settings

SOURCE = KafkaSource(("a:1", "b:2"))
PLAIN = {"kafka_sasl_mechanism": "PLAIN", "kafka_sasl_username": "ann", "kafka_sasl_password": SecretStr("s3cr3t")}
WRONG = {"kafka_sasl_password": SecretStr("wr0ng")}
NO_SASL = {"kafka_security_protocol": "PLAINTEXT", "kafka_sasl_mechanism": None}
ALWAYS = {
    "bootstrap_servers": ["a:1", "b:2"],
    "client_id": "journeys",
    "request_timeout_ms": 30_000,
    "bootstrap_timeout_ms": 30_000,
    "connections_max_idle_ms": 540_000,
    "reconnect_backoff_max_ms": 1000,
}
SASL = {"sasl_mechanism": "PLAIN", "sasl_plain_username": "ann", "sasl_plain_password": "s3cr3t"}


@pytest.fixture
def pem(tmp_path: Path) -> Path:
    path = tmp_path / "x.pem"
    path.touch()
    return path


def test_every_security_setting_reaches_kafka_python(pem):
    tls = {"kafka_ssl_cafile": pem, "kafka_ssl_certfile": pem, "kafka_ssl_keyfile": pem}
    secret = {"kafka_ssl_password": SecretStr("k3y"), "kafka_ssl_check_hostname": False}
    expected_tls = {
        "ssl_cafile": str(pem), "ssl_certfile": str(pem), "ssl_keyfile": str(pem),
        "ssl_password": "k3y", "ssl_check_hostname": False,
    }  # fmt: skip
    cases: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({}, {}),
        ({"kafka_security_protocol": "SSL"}, {"ssl_password": None, "ssl_check_hostname": True}),
        ({"kafka_security_protocol": "SSL", **tls, **secret}, expected_tls),
        ({"kafka_security_protocol": "SASL_PLAINTEXT", **PLAIN}, SASL),
        ({"kafka_security_protocol": "SASL_SSL", **PLAIN, **tls, **secret}, {**SASL, **expected_tls}),
        (
            {"kafka_security_protocol": "SASL_PLAINTEXT", **PLAIN, "kafka_sasl_mechanism": "SCRAM-SHA-512"},
            {**SASL, "sasl_mechanism": "SCRAM-SHA-512"},
        ),
        (
            {"kafka_security_protocol": "SASL_PLAINTEXT", "kafka_sasl_mechanism": "GSSAPI"},
            {"sasl_mechanism": "GSSAPI"},
        ),
    ]
    for given, expected in cases:
        protocol = given.get("kafka_security_protocol", "PLAINTEXT")
        assert client_options(SOURCE, Settings(**given)) == {**ALWAYS, "security_protocol": protocol, **expected}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"kafka_security_protocol": "SASL_SSL"}, "KAFKA_SASL_MECHANISM: no usable SASL mechanism.*PLAIN, SCRAM"),
        (
            {"kafka_security_protocol": "SASL_SSL", "kafka_sasl_mechanism": "OAUTHBEARER"},
            "got 'OAUTHBEARER'.*needs a token provider",
        ),
        (PLAIN, "KAFKA_SECURITY_PROTOCOL: a SASL mechanism needs a SASL protocol.*SASL_SSL"),
        (
            {"kafka_security_protocol": "SASL_PLAINTEXT", "kafka_sasl_mechanism": "PLAIN"},
            "needs a user name and a password.*JOURNEYS_KAFKA_SASL_USERNAME",
        ),
        (
            {"kafka_security_protocol": "SSL", "kafka_ssl_cafile": Path("/no/ca.pem")},
            "JOURNEYS_KAFKA_SSL_CAFILE: the file does not exist.*/no/ca.pem",
        ),
    ],
    ids=["no mechanism", "oauth", "no protocol", "no user", "no file"],
)
def test_settings_that_contradict_each_other_are_named_without_the_secret(given, words):
    with pytest.raises(ConfigurationError, match=words) as raised:
        client_options(SOURCE, Settings(**given))
    assert "s3cr3t" not in str(raised.value)


def test_settings_come_from_the_environment_and_hide_secrets(monkeypatch):
    monkeypatch.setenv("JOURNEYS_KAFKA_SASL_PASSWORD", "s3cr3t")
    settings = load_settings()
    assert settings.kafka_sasl_password is not None
    assert settings.kafka_sasl_password.get_secret_value() == "s3cr3t"
    assert "s3cr3t" not in repr(settings) + str(settings.model_dump())
    monkeypatch.setenv("JOURNEYS_KAFKA_SECURITY_PROTOCOL", "TLS")
    with pytest.raises(ConfigurationError, match=r"setting JOURNEYS_KAFKA_SECURITY_PROTOCOL: .*'SASL_SSL'.*got 'TLS'"):
        load_settings()


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture(scope="module")
def secured(broker_module, tmp_path_factory):
    """A broker with SASL_PLAINTEXT, SASL_SSL and client-certificate SSL listeners; answers their urls and files."""
    if broker_module.available_engine() != "java":
        pytest.skip("the secured listeners need the Java engine: they are set as server.properties")
    folder = tmp_path_factory.mktemp("secured")
    key, cert, store = folder / "key.pem", folder / "cert.pem", folder / "store.p12"
    run(
        "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
        "-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(cert),
    )  # fmt: skip
    run(
        "openssl", "pkcs12", "-export", "-inkey", str(key), "-in", str(cert), "-name", "b",
        "-passout", "pass:changeit", "-out", str(store),
    )  # fmt: skip
    run(
        "keytool", "-importcert", "-noprompt", "-alias", "ca", "-file", str(cert),
        "-keystore", str(folder / "trust.p12"), "-storepass", "changeit", "-storetype", "PKCS12",
    )  # fmt: skip
    plain, controller, sasl, sasl_ssl, mutual = (broker_module.free_port() for _ in range(5))
    names = {"PLAINTEXT": plain, "SASL_PLAINTEXT": sasl, "SASL_SSL": sasl_ssl, "SSL": mutual}
    addresses = ",".join(f"{name}://localhost:{port}" for name, port in names.items())
    jaas = 'org.apache.kafka.common.security.plain.PlainLoginModule required user_ann="s3cr3t";'
    overrides = {
        "listeners": f"{addresses},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": addresses,
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "listener.security.protocol.map": ",".join(f"{n}:{n}" for n in names) + ",CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.sasl_plaintext.plain.sasl.jaas.config": jaas,
        "listener.name.sasl_ssl.plain.sasl.jaas.config": jaas,
        "ssl.keystore.location": str(store), "ssl.keystore.password": "changeit", "ssl.keystore.type": "PKCS12",
        "ssl.truststore.location": str(folder / "trust.p12"), "ssl.truststore.password": "changeit",
        "listener.name.ssl.ssl.client.auth": "required",
    }  # fmt: skip
    broker = broker_module.Broker(folder / "kafka", plain, overrides=overrides, tied=True)
    with broker:
        yield {"key": key, "cert": cert, **{name: f"kafka://localhost:{port}" for name, port in names.items()}}


@pytest.mark.broker
@pytest.mark.parametrize("protocol", ["SASL_PLAINTEXT", "SASL_SSL", "SSL"])
def test_the_right_credentials_send_and_land(secured, tmp_path, landed, protocol):
    options: dict[str, Any] = {"kafka_security_protocol": protocol, "kafka_timeout_seconds": 10}
    options |= (
        PLAIN if "SASL" in protocol else {"kafka_ssl_certfile": secured["cert"], "kafka_ssl_keyfile": secured["key"]}
    )
    options |= {"kafka_ssl_cafile": secured["cert"]} if "SSL" in protocol else {}
    settings = Settings(home=tmp_path, **options)
    topic = f"t-{protocol}"
    with Writer(secured[protocol], settings) as writer:
        writer.send(topic, b"k", protocol.encode())
    land(secured[protocol], settings=settings, topics=[topic])
    assert [row["value"] for row in landed(settings)] == [protocol.encode()]


@pytest.mark.broker
@pytest.mark.parametrize(
    ("protocol", "change", "words"),
    [
        (
            "SASL_PLAINTEXT",
            {"kafka_sasl_password": SecretStr("wr0ng")},
            "refused the credentials.*JOURNEYS_KAFKA_SASL_",
        ),
        ("SASL_SSL", {"kafka_sasl_password": SecretStr("wr0ng")}, "refused the credentials.*JOURNEYS_KAFKA_SASL_"),
        ("SASL_SSL", {"kafka_ssl_cafile": None}, "did not answer as it should.*TLS"),
        (
            "SASL_PLAINTEXT",
            {"kafka_security_protocol": "PLAINTEXT", "kafka_sasl_mechanism": None},
            "did not answer.*TLS",
        ),
    ],
    ids=["wrong password", "wrong password over TLS", "unknown authority", "no SASL"],
)
def test_wrong_credentials_are_a_clear_error_without_the_secret(secured, tmp_path, protocol, change, words):
    options = {**PLAIN, "kafka_security_protocol": protocol, "kafka_ssl_cafile": secured["cert"], **change}
    settings = Settings(home=tmp_path, kafka_timeout_seconds=2, **options)
    for act in (lambda: land(secured[protocol], settings=settings), lambda: Writer(secured[protocol], settings)):
        with pytest.raises(BrokerError, match=words) as raised:
            act()
        assert "s3cr3t" not in str(raised.value) and "wr0ng" not in str(raised.value)
