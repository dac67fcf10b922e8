"""Limits of a file lie over those in force: for all, for a tenant, for a campaign; nonsense names its field."""

from pathlib import Path

import pytest

from cli.backtest_limits import read_limits
from cli.failures import WrongUse
from schemas.sending import Limits
from tests.agents.doubles import campaign

FILE = """\
hard_bounce = 0.01

[tenant.shop]
complaint = 0.002
pristine_trap = "judge"

[campaign."spring sale"]
hard_bounce = 0.03
judging = "fixed"
"""


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "limits"
    file.write_text(text)
    return file


def test_a_campaign_wins_over_its_tenant_and_that_over_all(tmp_path: Path) -> None:
    what_if = read_limits(written(tmp_path, FILE))
    own = Limits(block=0.2)

    found = what_if.applied(campaign("spring sale", tenant="shop", limits=own))
    other = what_if.applied(campaign("other", tenant="else", limits=own))

    assert found.limits == Limits(hard_bounce=0.03, complaint=0.002, block=0.2, judging="fixed")
    assert found.pristine_trap == "judge"
    assert (other.limits, other.pristine_trap) == (Limits(hard_bounce=0.01, block=0.2), "isolate")


def test_json_is_read_as_well(tmp_path: Path) -> None:
    found = read_limits(written(tmp_path, '{"complaint": 0.003, "tenant": {"shop": {"block": 0.5}}}'))

    assert found.applied(campaign(tenant="shop")).limits == Limits(complaint=0.003, block=0.5)


WRONG = {
    "misspelt": ("hard_bounse = 0.01", "field hard_bounse is unknown; did you mean hard_bounce?"),
    "too_large": ("complaint = 3", "field complaint: expected `float` <= 1.0"),
    "text": ('[tenant.shop]\nblock = "much"', "field tenant.shop.block: expected `float`, got `str`"),
    "of_a_campaign": ("[campaign.x]\ntrap = 1", "field campaign.x.trap is unknown"),
    "word": ('pristine_trap = "never"', "field pristine_trap: invalid enum value 'never'"),
    "no_table": ("tenant = 3", "field tenant: expected a table"),
    "no_table_of_one": ("[tenant]\nshop = 3", "field tenant.shop: expected a table"),
    "no_toml": ("hard_bounce 0.01", "is not TOML"),
    "no_json": ('{"hard_bounce": }', "is not JSON"),
    "nothing": ("", "holds no limits"),
}


@pytest.mark.parametrize(("text", "why"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_meant_names_the_field_and_the_fix(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(WrongUse) as wrong:
        read_limits(written(tmp_path, text))

    assert why in str(wrong.value)
