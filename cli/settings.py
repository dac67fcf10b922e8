"""Reading the settings: an option on the command line wins over the environment, which wins over the default."""

import os
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import click

from policy.settings import Settings, WrongSetting, read, shown

F = TypeVar("F", bound=Callable[..., Any])

PREFIX = "MAILCORDON_"
KAFKA = tuple(one.name for one in fields(Settings) if one.name.startswith("kafka"))
COMMON = (*KAFKA, "data", "secret_file", "log_level", "log_format")


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + name.upper()


def texts(options: Mapping[str, str | None], environment: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """The settings that were given, as text with their origin."""
    given: dict[str, tuple[str, str]] = {}
    for known in fields(Settings):
        option, inherited = options.get(known.name), environment.get(variable(known.name))
        if option is not None:
            given[known.name] = (option, f"option --{known.name.replace('_', '-')}")
        elif inherited:
            given[known.name] = (inherited, f"environment {variable(known.name)}")
    return given


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """Variables that look like ours and mean nothing: most likely misspelt."""
    known = {variable(one.name) for one in fields(Settings)}
    return sorted(name for name in environment if name.startswith(PREFIX) and name not in known)


def load(options: Mapping[str, str | None]) -> Settings:
    """The settings in force; nonsense ends the command with exit code 2."""
    for name in unknown_variables(os.environ):
        click.echo(f"warning: {name} is no setting of mailcordon; `mailcordon settings` lists them all", err=True)
    try:
        return read(texts(options, os.environ))
    except WrongSetting as wrong:
        raise click.UsageError(str(wrong)) from wrong


def setting_options(*names: str) -> Callable[[F], F]:
    """Give a command the options of these settings, and the settings in force as its first argument."""

    def decorate(command: F) -> F:
        known = {one.name: one for one in fields(Settings)}
        wanted = (*names, *COMMON)

        def with_settings(**arguments: Any) -> Any:  # Any: click's own calling convention
            options = {name: arguments.pop(name) for name in wanted}
            return command(load(options), **arguments)

        with_settings.__name__, with_settings.__doc__ = command.__name__, command.__doc__
        with_settings.__click_params__ = list(getattr(command, "__click_params__", []))  # type: ignore[attr-defined]
        decorated: Any = with_settings
        for name in reversed(wanted):
            one = known[name]
            default = shown(one.metadata["default"])
            unit = one.metadata["unit"]
            help_text = one.metadata["meaning"] + (f" [{unit}]" if unit else "")
            help_text += f"  [env: {variable(name)}; default: {default or 'none'}]"
            decorated = click.option(
                f"--{name.replace('_', '-')}", name, metavar="VALUE", default=None, help=help_text
            )(decorated)
        return decorated  # type: ignore[no-any-return]

    return decorate


def data_folder(settings: Settings) -> Path:
    """The folder for data and cache; made when it is missing, readable by its owner only."""
    if settings.data is not None:
        folder = settings.data.expanduser()
    else:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "mailcordon"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder.resolve()


def as_environment(settings: Settings) -> dict[str, str]:
    """The settings as variables for a child process."""
    found = {}
    for one in fields(Settings):
        text = shown(getattr(settings, one.name))
        if text:
            found[variable(one.name)] = text
    return found
