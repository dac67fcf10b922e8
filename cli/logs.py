"""Logs are events: constant text and named fields, on standard error, as text for people or JSON for machines."""

import logging
import sys

import structlog

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
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=0)
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
