"""One running mail server of each kind, for all tests of its kind; what it costs to have none, and where."""

import os
from collections.abc import Iterator
from typing import NoReturn

import pytest

from tests.mta.exim import EXIM
from tests.mta.opensmtpd import OPENSMTPD
from tests.mta.postfix import POSTFIX
from tests.mta.rig import CannotRun, MailServer, running

REQUIRED = "MAILCORDON_REQUIRE_MTAS"
MUST_RUN = os.environ.get(REQUIRED) == "1"  # read before a test's environment is emptied of settings


def cannot_run(why: Exception) -> NoReturn:
    """Skip where a server cannot run, fail where it must."""
    if MUST_RUN:
        raise why
    pytest.skip(str(why))


@pytest.fixture(scope="module", params=[POSTFIX, EXIM, OPENSMTPD], ids=lambda kind: kind.name)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MailServer]:
    """A mail server of its own configuration; skips where it cannot run, fails where it must."""
    try:
        with running(request.param, tmp_path_factory.mktemp(request.param.name)) as one:
            yield one
    except CannotRun as why:
        cannot_run(why)
