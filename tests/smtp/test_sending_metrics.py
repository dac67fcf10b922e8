"""What a sender tells of its providers when somebody scrapes."""

from smtp.attempts import Standing
from smtp.sending.metrics import SenderMetrics


def standing(provider: str, *, suspended: str | None = None, per_second: float = 0.0, sessions: int = 2) -> Standing:
    return Standing(provider, sessions=sessions, connections=5, per_second=per_second, suspended=suspended, back_offs=1)


def test_groups_of_a_provider_are_added_up_and_the_labels_stay_few() -> None:
    metrics = SenderMetrics()
    metrics.groups(
        lambda: [standing("other"), standing("other", suspended="blocklisted_ip"), standing("google", per_second=0.5)]
    )

    metrics.rules(lambda: {("gone", "invalid_recipient"): 3})

    def told(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(f"mailcordon_sender_{name}", labels)

    assert [told("sessions", provider=one) for one in ("other", "google")] == [4, 2]
    assert [told("sessions_limit", provider=one) for one in ("other", "google")] == [10, 5]
    assert [told("back_offs_total", provider=one) for one in ("other", "google")] == [2, 1]
    assert [told("rate_limit", provider=one) for one in ("other", "google")] == [None, 0.5]
    assert told("dry_run_rules_total", rule="gone", category="invalid_recipient") == 3
    assert told("suspended", provider="other", reason="blocklisted_ip") == 1
    assert told("suspended", provider="google", reason="blocklisted_ip") is None
