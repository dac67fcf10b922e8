"""The edge where senders run: what the core asks of it, and the two places that do it (processes, Kubernetes)."""
