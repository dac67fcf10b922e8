"""``mailcordon rules``: how replies of mail servers are read, and whether an operator's own rules can be meant."""

from pathlib import Path

import click
import msgspec

from cli.access import say
from cli.failures import SaysNo, WrongUse
from cli.settings import variable
from policy.replies import RuleBook, WrongRules, in_force, put_in_force, shipped_text
from policy.rule_explaining import Explained, explain
from policy.rule_mistakes import Checked
from policy.rule_mistakes import check as mistakes_in

FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
_LONGEST_FILE = 4 << 20


def put_rules_in_force(file: Path | None) -> None:
    """A role reads replies by the operator's rules and then ours; what cannot be meant ends it with a sentence."""
    if file is not None:
        put_in_force(book_of(file))


def book_of(file: Path) -> RuleBook:
    """Our rules with an operator's before them."""
    try:
        return RuleBook(shipped_text(), _text(file))
    except WrongRules as wrong:
        raise WrongUse(f"rules_file {file}: {wrong}; `mailcordon rules check {file}` tells all mistakes") from wrong


def _text(file: Path) -> str:
    try:
        if file.stat().st_size > _LONGEST_FILE:
            raise WrongUse(f"rules_file {file} is longer than 4 MiB; that is no list of rules")
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as cannot:
        raise WrongUse(f"rules_file {file} cannot be read: {cannot}") from cannot


@click.group()
def rules() -> None:
    """How replies of mail servers are read: one rule decides each, and these commands say which.

    Own rules stand in a file (setting rules_file) and are asked before those of mailcordon.
    """


@rules.command()
@click.argument("file", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
def check(file: Path, as_json: bool) -> None:
    """Check FILE with own rules: every mistake with its rule, its field and the fix.

    Each rule must read its own sample replies, must be reached, and must not take a block for a dead address.  The
    exit code is 1 if there is a mistake.

    \b
    Example:
      mailcordon rules check own-rules.toml
    """
    found = mistakes_in(_text(file))
    if as_json:
        click.echo(msgspec.json.encode(found).decode())
    else:
        _tell(found)
    if found.mistakes:
        raise SaysNo(f"{file} has {len(found.mistakes)} mistakes")


def _tell(found: Checked) -> None:
    for mistake in found.mistakes:
        place = ": ".join(part for part in (mistake.rule and f"rule {mistake.rule}", mistake.field) if part)
        click.echo(f"{place}: {mistake.explain}" if place else mistake.explain)
    for note in found.notes:
        say(note)
    if not found.mistakes:
        click.echo(
            f"{found.rules} rules and {found.hints} hints are in order, {found.samples} samples are read by them"
        )


@rules.command(name="explain")
@click.argument("reply")
@click.option("--provider", default="other", show_default=True, help="Mailbox provider that said it.")
@click.option(
    "--rules",
    "file",
    type=FILE,
    envvar=variable("rules_file"),
    help="Own rules, asked first; default: setting rules_file.",
)
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def explain_(reply: str, provider: str, file: Path | None, as_json: bool) -> None:
    """Say how REPLY is read: which rule, why, and what follows.

    \b
    Examples:
      mailcordon rules explain "550 5.1.1 No such user here"
      mailcordon rules explain "421 4.7.0 [TSS04] Messages deferred" --provider yahoo --json
    """
    said = explain(book_of(file) if file is not None else in_force(), reply, provider)
    if as_json:
        click.echo(msgspec.json.encode(said).decode())
    else:
        _print(said)


def _print(said: Explained) -> None:
    click.echo(f"rule      {said.rule}")
    click.echo(f"why       {said.why}")
    click.echo(f"category  {said.category}")
    click.echo(f"class     {said.class_}")
    for at, sentence in enumerate(said.follows):
        click.echo(f"{'follows' if not at else '':<9} {sentence}")
    if said.would:
        click.echo(f"dry run   {said.would} would have decided")
    if said.others:
        click.echo(f"fitted    {', '.join(said.others)}, but later")
