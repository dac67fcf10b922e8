"""Role accounts: the quick look at the first letters answers as the look at the whole name does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy import roles
from policy.roles import Role, role_of

NAMES = sorted(roles._ROLES)


def plainly(local: str) -> Role | None:
    """The rule without a shortcut."""
    name = local.lower()
    if not name.isalnum():
        if name.endswith("-request"):
            return "never"
        name = name.partition("+")[0].replace(".", "").replace("-", "").replace("_", "")
    return roles._ROLES.get(name)


@st.composite
def likenesses(draw: st.DrawFn) -> str:
    """The name of a role account with signs between its letters, in any case, perhaps with a tag or too much."""
    name = draw(st.sampled_from(NAMES))
    signs = st.sampled_from(["", "", "", ".", "-", "_", "+"])
    spread = "".join(letter + draw(signs) for letter in name)
    cased = "".join(draw(st.sampled_from([letter, letter.upper()])) for letter in spread)
    return draw(st.sampled_from(["", ".", "x"])) + cased + draw(st.sampled_from(["", "+tag", "x", "-request"]))


@given(likenesses() | st.text(alphabet="abiofnxr-._+AB1é", max_size=12))
def test_the_quick_look_answers_as_the_long_one(local: str) -> None:
    assert role_of(local) == plainly(local)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_of_the_file_is_found(name: str) -> None:
    assert role_of(name) == role_of(name.upper()) == roles._ROLES[name]
    assert role_of(f"{name}+news") == roles._ROLES[name]
