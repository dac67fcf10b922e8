"""Settings: safe as they come, readable back, and nonsense is named."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy import settings
from policy.settings import Endpoint, Settings, WrongSetting

KNOWN = {known.name: known for known in fields(Settings)}

A_VALUE = {
    "kafka": "kafka-0:9092,kafka-1:9092",
    "kafka_tls": "true",
    "kafka_ca_file": "/etc/mailcordon/kafka/ca.crt",
    "kafka_cert_file": "/etc/mailcordon/kafka/tls.crt",
    "kafka_key_file": "/etc/mailcordon/kafka/tls.key",
    "kafka_mechanism": "SCRAM-SHA-512",
    "kafka_user": "mailcordon",
    "kafka_password_file": "/etc/mailcordon/kafka/password",
    "data": "/var/lib/mailcordon",
    "secret_file": "/run/secrets/keys.json",
    "backend": "kubernetes",
    "smtp_routes": "*=127.0.0.1:2525,example.com=[::1]:2526",
    "allow_private_mx": "true",
    "providers": "gmail.example=google,web.example=gmx",
    "feedback_loops": "+google,-yahoo",
    "own_domains": "bounces.example.com,rp.example.org",
    "trap_domains": "never-published.example",
    "allow_domains": "corp.example,staging.example",
    "deny_domains": "rival.example",
    "web": "0.0.0.0:7000",
    "controller_web": "[::]:7001",
    "return_path": "0.0.0.0:25",
    "return_path_web": "127.0.0.1:0",
    "sender_web": "localhost:9100",
    "hostname": "mail-1.example.com",
    "bind": "192.0.2.7,2001:db8::7",
    "egress_address": "198.51.100.7",
    "egress_seen_by": "bounces.example.com:25",
    "egress_proxy": "socks5://[::1]:1080",
    "egress_proxy_auth_file": "/run/secrets/proxy",
    "egress_check": "warn",
    "smarthost": "smtps://relay.example.com:465",
    "smarthost_auth_file": "/run/secrets/smarthost",
    "smarthost_ca_file": "/etc/ssl/own-ca.pem",
    "dkim_folder": "/etc/mailcordon/dkim",
    "mta_sts": "false",
    "dane": "off",
    "trust_resolver": "true",
    "tls_ca_file": "/etc/ssl/mail-ca.pem",
    "partitions": "12",
    "outbound_partitions": "1",
    "isolate_percent": "10",
    "isolate_at_least": "5",
    "hard_suppression_days": "400",
    "soft_suppression_days": "30",
    "replication": "3",
    "deaf_after_s": "300",
    "grace_s": "3600",
    "unsubscribe_url": "https://u.shop.example/u",
    "unsubscribe_web": "0.0.0.0:8443",
    "unsubscribe_certificate": "/etc/mailcordon/unsubscribe.pem",
    "unsubscribe_key": "/etc/mailcordon/unsubscribe.key",
    "unsubscribe_plain_http": "true",
    "webhooks": "127.0.0.1:8443",
    "webhooks_file": "/etc/mailcordon/webhooks.toml",
    "shaping_file": "/etc/mailcordon/shaping.toml",
    "rules_file": "/etc/mailcordon/rules.toml",
    "retries": "60,300,3600",
    "connections": "1000",
    "parsers": "4",
    "parser_memory_mib": "128",
    "parser_s": "10",
    "namespace": "mail",
    "image": "registry.example.com/mailcordon:0.1.0",
    "log_level": "debug",
    "log_format": "json",
    "exit_with": "4711",
}


def test_the_defaults_are_valid() -> None:
    assert settings.read({}) == Settings()


@pytest.mark.parametrize("name", KNOWN)
def test_every_default_can_be_read_back(name: str) -> None:
    text = settings.shown(KNOWN[name].metadata["default"])
    if text == "":
        return  # unset, which is how an empty text is taken

    assert settings.read({name: (text, "test")}) == Settings()


@pytest.mark.parametrize("name", KNOWN)
def test_a_value_is_shown_as_it_can_be_read(name: str) -> None:
    once = settings.read({name: (A_VALUE[name], "test")})
    text = settings.shown(getattr(once, name))

    assert getattr(once, name) != getattr(Settings(), name)
    assert settings.read({name: (text, "test")}) == once


@given(host=st.from_regex(r"[a-z0-9.]{1,20}", fullmatch=True), port=st.integers(0, 65535))
def test_an_endpoint_is_read_back(host: str, port: int) -> None:
    assert settings.endpoint(str(Endpoint(host, port))) == Endpoint(host, port)


@given(st.ip_addresses(v=6), st.integers(0, 65535))
def test_an_ipv6_endpoint_is_read_back(host: object, port: int) -> None:
    assert settings.endpoint(str(Endpoint(str(host), port))) == Endpoint(str(host), port)


@given(text=st.text(max_size=30), name=st.sampled_from(sorted(KNOWN)))
def test_any_text_is_a_value_or_is_refused_by_its_name(text: str, name: str) -> None:
    origin = f"environment MAILCORDON_{name.upper()}"
    refusals = []
    try:
        settings.read({name: (text, origin)})
    except WrongSetting as wrong:
        refusals.append(str(wrong))

    assert all(one.startswith(f"{origin}: ") for one in refusals)


@pytest.mark.parametrize(
    ("name", "text", "fix"),
    [
        pytest.param("backend", "docker", "expected one of process, kubernetes, got 'docker'", id="unknown word"),
        pytest.param("log_level", "INFO", "expected one of debug, info, warning, error, got 'INFO'", id="capitals"),
        pytest.param("allow_private_mx", "maybe", "expected true or false, got 'maybe'", id="no truth value"),
        pytest.param("web", "6066", "expected host:port such as 127.0.0.1:2525, got '6066'", id="no host"),
        pytest.param("web", ":6066", "expected host:port such as 127.0.0.1:2525, got ':6066'", id="empty host"),
        pytest.param("web", "localhost:70000", "expected host:port", id="port too high"),
        pytest.param("web", "localhost:²", "expected host:port", id="a digit that is none"),
        pytest.param("smtp_routes", "127.0.0.1:2525", "expected DOMAIN=HOST:PORT, comma separated", id="no domain"),
        pytest.param("smtp_routes", "*=127.0.0.1", "expected host:port", id="route without port"),
        pytest.param("providers", "gmail.example", "expected NAME=VALUE, comma separated", id="no provider"),
        pytest.param("feedback_loops", "google,+gmx", "expected names alone, or +", id="added to a whole list"),
        pytest.param(
            "feedback_loops", "yahoo,yahoo", "expected providers such as yahoo,microsoft, each once", id="a loop twice"
        ),
        pytest.param(
            "feedback_loops",
            "+yahoo,-yahoo",
            "expected providers such as yahoo,microsoft, each once",
            id="a loop that comes and goes",
        ),
        pytest.param(
            "feedback_loops",
            "none,yahoo",
            "expected providers such as yahoo,microsoft, each once",
            id="nobody and somebody",
        ),
        pytest.param(
            "feedback_loops", "+none", "expected providers such as yahoo,microsoft, each once", id="nobody added"
        ),
        pytest.param("feedback_loops", "yahoo,-", "expected names alone, or +", id="a sign without a name"),
        pytest.param("feedback_loops", "-", "expected providers such as yahoo,microsoft, each once", id="a sign alone"),
        pytest.param("partitions", "four", "expected a whole number, got 'four'", id="a word"),
        pytest.param("partitions", "4.0", "expected a whole number, got '4.0'", id="not whole"),
        pytest.param("partitions", "0", "expected 1 to 1000, got 0", id="below"),
        pytest.param("connections", "1001", "expected 1 to 1000, got 1001", id="above"),
        pytest.param("bind", "192.0.2.7,192.0.2.8", "expected at most one IPv4 and one IPv6", id="two of a kind"),
        pytest.param("bind", "eth0", "'eth0' does not appear to be an IPv4 or IPv6 address", id="no address"),
        pytest.param("egress_proxy", "http://p:1080", "expected socks5://host:port or haproxy2://", id="unknown proxy"),
        pytest.param("smarthost", "lmtp://m:24", "expected smtp://host:port or smtps://host:port", id="not SMTP"),
        pytest.param("retries", "5m,15m", "expected whole seconds, comma separated", id="minutes"),
        pytest.param("retries", "0", "expected at most 50 pauses of 1 to 604800 seconds", id="no pause"),
        pytest.param("deaf_after_s", "-1", "expected 1 to 300, got -1", id="negative"),
    ],
)
def test_nonsense_names_the_setting_and_the_fix(name: str, text: str, fix: str) -> None:
    with pytest.raises(WrongSetting) as wrong:
        settings.read({name: (text, f"option --{name.replace('_', '-')}")})

    assert str(wrong.value).startswith(f"option --{name.replace('_', '-')}: {fix}")


@pytest.mark.parametrize("name", ["egress_proxy", "smarthost"])
def test_a_secret_in_a_url_is_refused_and_not_repeated(name: str) -> None:
    scheme = {"egress_proxy": "socks5", "smarthost": "smtp"}[name]
    with pytest.raises(WrongSetting, match=f"{name}_auth_file") as wrong:
        settings.read({name: (f"{scheme}://ann:s3cret@mail.example:1080", "test")})

    assert "s3cret" not in str(wrong.value)


def test_routes_are_found_by_domain_in_lower_case() -> None:
    found = settings.routes(" *=127.0.0.1:2525, Example.COM=10.0.0.1:25 ,")

    assert found == {"*": Endpoint("127.0.0.1", 2525), "example.com": Endpoint("10.0.0.1", 25)}


def test_a_description_tells_where_a_value_comes_from() -> None:
    values = {"partitions": ("12", "environment MAILCORDON_PARTITIONS")}
    found = {one.name: one for one in settings.describe(settings.read(values), values)}

    assert (found["partitions"].value, found["partitions"].origin) == ("12", "environment MAILCORDON_PARTITIONS")
    assert (found["grace_s"].value, found["grace_s"].origin, found["grace_s"].unit) == ("20", "default", "seconds")
    assert list(found) == list(KNOWN)


@pytest.mark.parametrize("name", KNOWN)
def test_every_setting_says_what_it_is_for(name: str) -> None:
    assert KNOWN[name].metadata["meaning"]


def test_settings_cannot_be_changed_later() -> None:
    with pytest.raises(AttributeError):
        Settings().partitions = 5  # type: ignore[misc]


def test_paths_are_paths() -> None:
    assert settings.read({"data": ("/tmp/x", "test")}).data == Path("/tmp/x")  # noqa: S108 - nothing is written


def test_a_mapping_of_another_kind_is_shown_the_same() -> None:
    class Own(dict[str, str]):
        pass

    assert isinstance(Own(), Mapping)
    assert settings.shown(Own(a="b")) == "a=b"
