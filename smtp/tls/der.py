"""The public key of a certificate, byte for byte as it stands there (RFC 6698 2.1.2: what selector 1 names).

Libraries decode a key and encode it anew, which changes it if it was written in another of the forms that are allowed:
a compressed point of a curve, an RSA key without its NULL.  So the few steps to its place are taken here.
"""

from cryptography import x509

_VERSION = 0xA0
_BEFORE_KEY = 5  # serial number, signature algorithm, issuer, validity, subject (RFC 5280 4.1)


def key_of(certificate: x509.Certificate) -> bytes:
    """The SubjectPublicKeyInfo; the certificate has been read before, so its structure is right."""
    body = certificate.tbs_certificate_bytes
    at, _ = _contents(body, 0)
    if body[at] == _VERSION:
        at = _contents(body, at)[1]
    for _ in range(_BEFORE_KEY):
        at = _contents(body, at)[1]
    return body[at : _contents(body, at)[1]]


def _contents(data: bytes, at: int) -> tuple[int, int]:
    """Where the contents of the element that begins at ``at`` begin and end."""
    length, begin = data[at + 1], at + 2
    if length & 0x80:
        digits = length & 0x7F
        length, begin = int.from_bytes(data[begin : begin + digits], "big"), begin + digits
    return begin, begin + length
