"""Which names in a certificate mean a host (RFC 6125 6.4, RFC 8461 4.1)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp.tls.names import matches, named, names_others, presented
from tests.smtp.authority import identity


@pytest.mark.parametrize(
    ("pattern", "host", "means"),
    [
        ("mx.example.com", "mx.example.com", True),
        ("MX.Example.COM", "mx.example.com", True),
        ("mx.example.com", "mx.example.com.", True),
        ("*.example.com", "mx.example.com", True),
        ("*.example.com", "example.com", False),
        ("*.example.com", "a.mx.example.com", False),
        ("*.example.com", ".example.com", False),
        ("m*.example.com", "mx.example.com", False),
        ("*x.example.com", "mx.example.com", False),
        ("mx.*.com", "mx.example.com", False),
        ("*.*.com", "mx.example.com", False),
        ("*.com", "example.com", False),
        ("*", "com", False),
        ("*.", "com", False),
        ("", "", False),
        ("example.com", "mx.example.com", False),
        ("mx.example.com.evil.example", "mx.example.com", False),
        ("mx.example.com\0.evil.example", "mx.example.com", False),
        ("xn--mx-eka.example.com", "xn--mx-eka.example.com", True),
    ],
)
def test_which_names_mean_a_host(pattern: str, host: str, means: bool) -> None:
    assert matches(pattern, host) is means


_LABELS = st.lists(st.sampled_from(["a", "b", "*", "", "com"]), max_size=4).map(".".join)


@given(pattern=_LABELS, host=_LABELS)
def test_a_name_means_a_host_label_by_label(pattern: str, host: str) -> None:
    if matches(pattern, host):
        labels = list(zip(pattern.split("."), host.rstrip(".").split("."), strict=True))
        assert all(one == other for one, other in labels[1:])
        assert labels[0][0] in ("*", labels[0][1])


def test_the_sentence_names_a_few_of_many() -> None:
    certificate = identity(*(f"mx{n}.other.example" for n in range(5))).certificate
    assert named(certificate, ("mx.example.com", "mx3.other.example")) == "mx3.other.example"
    assert names_others(certificate, ("mx.example.com",)) == (
        "certificate names mx0.other.example, mx1.other.example, mx2.other.example and 2 more, not mx.example.com"
    )


def test_a_certificate_without_names_has_none() -> None:
    assert presented(identity(common_name="mx.example.com").certificate) == ()
