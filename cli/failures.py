"""How a command ends: 0 done, 1 the answer is no, 2 wrong use, 3 something outside failed."""

import click

EXIT_NO = 1
EXIT_WRONG_USE = 2
EXIT_OUTSIDE = 3


class SaysNo(click.ClickException):
    """The command worked, and the answer is no."""

    exit_code = EXIT_NO


class WrongUse(click.ClickException):
    """What was asked cannot be meant: a wrong file, option or value."""

    exit_code = EXIT_WRONG_USE


class OutsideFailed(click.ClickException):
    """Kafka, the cluster or the network did not do its part."""

    exit_code = EXIT_OUTSIDE
