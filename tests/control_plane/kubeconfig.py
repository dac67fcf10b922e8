"""Kubeconfig files: who one is, and where the API is. JSON is YAML, and every client reads it."""

import json
from pathlib import Path


def write(
    path: Path,
    *,
    server: str,
    ca: Path,
    token: str | None = None,
    token_file: Path | None = None,
    namespace: str = "default",
) -> Path:
    """Write a file for one user who shows a token, or one that is read anew from a file."""
    user = {"token": token} if token is not None else {"tokenFile": str(token_file)}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "plane", "cluster": {"server": server, "certificate-authority": str(ca)}}],
        "users": [{"name": "user", "user": user}],
        "contexts": [{"name": "plane", "context": {"cluster": "plane", "user": "user", "namespace": namespace}}],
        "current-context": "plane",
    }
    path.touch(mode=0o600)
    path.write_text(json.dumps(content, indent=1))
    return path
