"""Settings: the option wins over the environment, nonsense ends with exit code 2 and names the setting."""

import click
import pytest
from click.testing import CliRunner

from cli.settings import as_environment, load, setting_options, texts, unknown_variables
from policy.settings import Settings, WrongSetting, read


@click.command()
@setting_options("web", "smtp_routes")
def probe(settings: Settings) -> None:
    """Print what arrived."""
    click.echo(f"{settings.web} {settings.log_level} {sorted(settings.smtp_routes)}")


def test_an_option_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAILCORDON_WEB", "127.0.0.1:1111")
    monkeypatch.setenv("MAILCORDON_LOG_LEVEL", "error")

    said = CliRunner().invoke(probe, ["--web", "127.0.0.1:2222"]).output

    assert said == "127.0.0.1:2222 error []\n"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        pytest.param(["--web", "nowhere"], "option --web: expected host:port", id="no-port"),
        pytest.param(["--web", "a:99999"], "option --web: expected host:port", id="port-too-high"),
        pytest.param(["--smtp-routes", "127.0.0.1:25"], "option --smtp-routes: expected DOMAIN=HOST:PORT", id="route"),
        pytest.param(["--log-level", "loud"], "option --log-level: expected one of debug", id="choice"),
    ],
)
def test_nonsense_is_wrong_use_and_names_the_setting(arguments: list[str], named: str) -> None:
    result = CliRunner().invoke(probe, arguments)

    assert (result.exit_code, named in result.output) == (2, True)


def test_nonsense_in_the_environment_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAILCORDON_PARTITIONS", "many")

    with pytest.raises(click.UsageError, match="environment MAILCORDON_PARTITIONS: expected a whole number"):
        load({})


def test_a_misspelt_variable_is_pointed_out() -> None:
    assert unknown_variables({"MAILCORDON_KAFKAA": "x", "MAILCORDON_KAFKA": "y", "HOME": "/"}) == ["MAILCORDON_KAFKAA"]


def test_help_tells_variable_unit_and_default() -> None:
    said = CliRunner().invoke(probe, ["--help"]).output

    assert "MAILCORDON_SMTP_ROUTES" in said
    assert "127.0.0.1:6066" in said


def test_a_child_process_gets_the_same_settings() -> None:
    settings = read({"smtp_routes": ("*=127.0.0.1:25,a.example=[::1]:26", "t"), "trap_domains": ("x.example", "t")})

    inherited = read(texts({}, as_environment(settings)))

    assert inherited == settings


def test_every_default_is_a_value_that_can_be_read() -> None:
    assert read(texts({}, as_environment(Settings()))) == Settings()


def test_a_wrong_setting_is_a_value_error() -> None:
    with pytest.raises(WrongSetting):
        read({"deaf_after_s": ("0", "option --deaf-after-s")})
