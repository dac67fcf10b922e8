"""Logs are events: constant text and named fields, on standard error, as text for people or JSON for machines."""

import importlib
import logging
import sys


def _without(package: str, wanted: str) -> None:
    """Import what takes another package along wherever it can be had, without that."""
    there = package in sys.modules
    if not there:
        sys.modules[package] = None  # type: ignore[assignment]  # says that it cannot be had
    try:
        importlib.import_module(wanted)
    finally:
        if not there:
            del sys.modules[package]


# rich is for commands that draw.  To structlog it is tracebacks in colour, for 3 MiB of every process.
_without("rich", "structlog")

import structlog  # noqa: E402 - see above

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_NOISY = {
    "aiokafka": logging.ERROR,  # reconnects are normal and come by the hundred
    "faust": logging.WARNING,
    "mode": logging.WARNING,
    "mail.log": logging.WARNING,
    "aiohttp.access": logging.WARNING,
    "asyncio": logging.ERROR,
    "kubernetes": logging.WARNING,
}


def configure(*, level: str, form: str, role: str) -> None:
    """Set up logging for one process; ``role`` stands in every event."""
    number = _LEVELS[level]
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if form == "json"
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            pad_event_to=0,
            exception_formatter=structlog.dev.plain_traceback,  # rich's would show local variables: addresses
        )
    )
    structlog.configure(
        processors=[*shared, structlog.processors.format_exc_info, renderer] if form == "json" else [*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(role=role)
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(number)
    for name, quiet in _NOISY.items():
        logging.getLogger(name).setLevel(max(quiet, number) if level != "debug" else logging.INFO)


def quiet_clients() -> None:
    """Commands say in a sentence what the Kafka client says in ten lines."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
