"""The installation's keys: for address hashes and signed return paths.  Never on a command line, never in a log."""

import json
import os
import secrets
from pathlib import Path

from cli.failures import WrongUse
from policy.tokens import Keys

_KEY_BYTES = 32


def load(file: Path) -> Keys:
    """Read the keys; a file that others may read is refused."""
    try:
        mode = file.stat().st_mode
        content = json.loads(file.read_text(encoding="utf-8"))
        keys = Keys(
            address=bytes.fromhex(content["address"]),
            return_path=bytes.fromhex(content["return_path"]),
            key_id=str(content["key_id"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as wrong:
        raise WrongUse(
            f"secret file {file}: {type(wrong).__name__}: {wrong}; it must be a JSON object with key_id and the "
            "hex keys address and return_path, as `mailcordon settings` describes"
        ) from wrong
    if mode & 0o007:
        raise WrongUse(f"secret file {file} can be read by everybody; run: chmod 600 {file}")
    if min(len(keys.address), len(keys.return_path)) < _KEY_BYTES:
        raise WrongUse(f"secret file {file}: each key needs {_KEY_BYTES} bytes ({2 * _KEY_BYTES} hex digits)")
    return keys


def load_or_make(file: Path) -> Keys:
    """Read the keys, or draw new ones on the first run of an installation."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        drawn = {"key_id": "1", "address": secrets.token_hex(_KEY_BYTES), "return_path": secrets.token_hex(_KEY_BYTES)}
        temporary = file.with_suffix(f".{os.getpid()}.tmp")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as out:
            json.dump(drawn, out)
            out.flush()
            os.fsync(out.fileno())
        try:
            os.link(temporary, file)  # fails when another process was first: then its keys are the keys
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
    return load(file)
