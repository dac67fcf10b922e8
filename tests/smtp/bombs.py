"""A corpus of bombs: messages that were made to keep a reader busy, full, or wrong.

Every bomb is about as large as the return path takes (2 MiB), unless its form is what hurts.  They come from what is
known of parsers in the wild: quadratic header folding, parameters continued a hundred thousand times (RFC 2231),
encoded words, deep and broad nesting, boundaries that nearly match, transfer encodings and character sets that lie,
and reports whose fields are repeated without end.  ``corpus`` makes them anew; none is stored.
"""

import base64
import gzip
import io
import random
import zipfile
from collections.abc import Iterator

SIZE = 2_000_000
_REPORT = (
    b"Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\nFrom: MAILER-DAEMON@x.example\r\n\r\n"
)
_STATUS = b"--b\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; x.example\r\n\r\n"
_MULTIPART = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
_ROBOT = b"From: MAILER-DAEMON@x.example\r\nSubject: failure notice\r\n"


def corpus(size: int = SIZE) -> Iterator[tuple[str, bytes]]:
    """Every bomb with its name."""
    for make in (_headers, _structures, _bodies, _reports, _texts):
        yield from make(size)


def fill(piece: bytes, size: int) -> bytes:
    """The piece again and again, up to about this size."""
    return piece * max(1, size // len(piece))


def _headers(size: int) -> Iterator[tuple[str, bytes]]:
    yield "one header field without an end", b"Subject: " + fill(b"x", size)
    yield "a header of folded lines", b"Subject: x" + fill(b"\r\n y", size) + b"\r\n\r\nbody"
    yield "a header of blank folded lines", b"Subject: x" + fill(b"\r\n\t", size) + b"\r\n\r\nbody"
    yield "a header of many fields", fill(b"X-Field: y\r\n", size) + b"\r\nbody"
    yield "a header of many equal fields", fill(b"Received: from a by b\r\n", size) + b"\r\nbody"
    yield "a header of colons", fill(b":", size)
    yield "a header of names without a value", fill(b"a:\r\n", size)
    yield "parameters of 160 KB", b"Content-Type: text/plain" + fill(b"; a=b", 160_000) + b"\r\n\r\nbody"
    yield "a parameter of quotes", b'Content-Type: multipart/mixed; boundary="' + fill(b'\\"', size) + b"\r\n\r\nbody"
    yield "semicolons", b"Content-Type: multipart/mixed" + fill(b";", size) + b"\r\n\r\nbody"
    yield "a boundary that never comes", b"Content-Type: multipart/mixed" + fill(b"; boundary = ", size) + b"\r\n\r\nx"
    continued = b"".join(b";\r\n boundary*%d=b" % number for number in range(20_000))
    yield "RFC 2231 continuations", b"Content-Type: multipart/mixed" + continued + b"\r\n\r\n--b\r\n\r\nx"
    encoded = b"".join(b";\r\n name*%d*=utf-8''%%41%%42" % number for number in range(20_000))
    yield "RFC 2231 continuations, encoded", b"Content-Type: text/plain" + encoded + b"\r\n\r\nbody"
    huge = b"; name*" + fill(b"9", 100_000) + b"=x"
    yield "RFC 2231 continuation of a huge number", b"Content-Type: text/plain" + huge + b"\r\n\r\nbody"
    yield "encoded words of 273 KB", b"Subject: " + fill(b"=?utf-8?q?=41=42?= ", 273_000) + b"\r\n\r\nbody"
    yield "encoded words, folded", b"Subject: x" + fill(b"\r\n =?utf-8?b?QUJD?=", 273_000) + b"\r\n\r\nbody"
    yield "encoded words that never end", b"Subject: " + fill(b"=?utf-8?q?", 273_000) + b"\r\n\r\nbody"
    yield "an encoded word of 1 MB", b"Subject: =?utf-8?b?" + fill(b"QUJD", 1_000_000) + b"?=\r\n\r\nbody"
    yield "an encoded word of a charset that lies", b"Subject: " + fill(b"=?utf-7?q?+AGE-?= ", 60_000) + b"\r\n\r\nx"
    yield "To of 1.7 MB", b"To: " + fill(b"a@b.example, ", 1_700_000) + b"\r\n\r\nbody"
    yield "To of a million addresses", b"To: " + b"a@b," * 1_000_000 + b"\r\n\r\nbody"
    yield "To of folded addresses", b"To: x" + fill(b",\r\n <user@b.example>", size) + b"\r\n\r\nbody"
    yield "From of nested comments", b"From: " + b"(" * 100_000 + b"a" + b")" * 100_000 + b" <a@b>\r\n\r\nbody"
    yield "From of open angles", b"From: " + fill(b"<", size) + b"\r\n\r\nbody"
    yield "From of quotes", b"From: " + fill(b'"a\\"', size) + b" <a@b>\r\n\r\nbody"
    yield "From of dots", b"From: <a@" + fill(b"a.", size) + b">\r\n\r\nbody"
    yield "a source route without an end", b"From: <" + fill(b"@a,", size) + b":a@b>\r\n\r\nbody"
    yield "Message-ID without an end", b"Message-ID: <" + fill(b"a.b@", size) + b">\r\n\r\nbody"
    yield "References of a million", b"References: " + fill(b"<a.b@c> ", size) + b"\r\n\r\nbody"
    yield "Date of digits", b"Date: " + fill(b"1", size) + b"\r\n\r\nbody"
    yield "header of NULs", fill(b"\x00", size)
    yield "header of bare CR", fill(b"A: b\r", size) + b"\r\n\r\nbody"
    yield "header of bare LF", fill(b"A: b\n", size) + b"\n\nbody"
    yield "header of CRCRLF", fill(b"A: b\r\r\n", size) + b"\r\n\r\nbody"
    yield "header of half characters", b"Subject: " + fill(b"\xc3\xed\xa0\x80\xff", size) + b"\r\n\r\nbody"
    yield "blanks", b"Subject:" + fill(b" \t", size) + b"x\r\n\r\nbody"
    yield "signed return paths", b"Return-Path: " + fill(b"<b+" + b"a" * 60 + b"@x.example> ", size) + b"\r\n\r\nbody"


def _structures(size: int) -> Iterator[tuple[str, bytes]]:
    yield "200,000 parts", _MULTIPART + b"--b\r\n\r\n" * 200_000
    yield "200,000 parts without a blank line", _MULTIPART + b"--b\r\n" * 200_000
    yield "parts with headers", _MULTIPART + fill(b"--b\r\nContent-Type: text/plain\r\nX: y\r\n\r\nz\r\n", size)
    yield "nesting of 1000", nested(1_000, b"multipart/mixed")
    yield "nesting of 1000, one boundary", fill(b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n", 46_000)
    yield "nesting of 10,000", nested(10_000, b"multipart/mixed")
    yield "nested messages", fill(b"Content-Type: message/rfc822\r\n\r\n", size)
    yield "nested reports", nested(1_000, b"multipart/report; report-type=delivery-status")
    yield "nesting, each with 40 parts", _broad(5, 8)
    yield "boundaries that nearly match", _MULTIPART + fill(b"--bb\r\n--b-\r\n--b \x00\r\n", size)
    yield "boundary lines without a line end", _MULTIPART + fill(b"\r\n--b" + b" " * 200, size)
    yield "boundary of one dash", b"Content-Type: multipart/mixed; boundary=-\r\n\r\n" + fill(b"---\r\n", size)
    yield "boundary of nothing", b'Content-Type: multipart/mixed; boundary=""\r\n\r\n' + fill(b"--\r\n\r\n", size)
    yield (
        "boundary of 10,000",
        b"Content-Type: multipart/mixed; boundary="
        + b"b" * 10_000
        + b"\r\n\r\n"
        + fill(b"--" + b"b" * 10_000 + b"\r\n\r\n", size),
    )
    yield "boundary of a prefix", _MULTIPART + fill(b"\n-", size)
    yield "an end before the begin", _MULTIPART + fill(b"--b--\r\n--b\r\n\r\n", size)
    yield "multipart of no parts", _MULTIPART + fill(b"x\r\n", size)
    yield "headers in parts without an end", _MULTIPART + b"--b\r\n" + fill(b"Y: z\r\n", size)


def nested(depth: int, kind: bytes) -> bytes:
    """A message in a message, and so on."""
    return b"".join(b"Content-Type: %s; boundary=b%d\r\n\r\n--b%d\r\n" % (kind, n, n) for n in range(depth)) + b"\r\nx"


def _broad(depth: int, width: int) -> bytes:
    if not depth:
        return b"Content-Type: text/plain\r\n\r\nx\r\n"
    inner = _broad(depth - 1, width)
    parts = b"".join(b"--l%d\r\n" % depth + inner for _ in range(width))
    return b"Content-Type: multipart/mixed; boundary=l%d\r\n\r\n" % depth + parts + b"--l%d--\r\n" % depth


def _bodies(size: int) -> Iterator[tuple[str, bytes]]:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(4):
            archive.writestr(f"{number}.txt", bytes(50_000_000))
    zipped, gzipped = packed.getvalue(), gzip.compress(bytes(200_000_000), 9)
    for name, kind, content in (("zip", b"application/zip", zipped), ("gzip", b"application/gzip", gzipped)):
        part = b"--b\r\nContent-Type: %s\r\nContent-Transfer-Encoding: base64\r\n\r\n" % kind + base64.encodebytes(
            content
        )
        yield f"{name} of 200 MB as an attachment", _MULTIPART + part + b"--b--\r\n"
        yield f"{name} of 200 MB as the report", _REPORT + part.replace(kind, b"message/delivery-status") + b"--b--\r\n"
    for encoding in (b"base64", b"quoted-printable", b"uuencode", b"8bit", b"x-gzip", b"base64" * 50):
        head = b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: " + encoding + b"\r\n\r\n"
        for what, piece in (
            ("letters", b"QUJD"), ("padding", b"===="), ("escapes", b"=41=0D=0A"), ("soft line ends", b"=\r\n"),
            ("blanks at line ends", b"x \t \r\n"), ("noise", b"\x00\xff-_!\r\n"), ("broken escapes", b"=4=G=\r"),
        ):  # fmt: skip
            yield f"{encoding[:20].decode()} of {what}", _ROBOT + head + fill(piece, size)
    for charset in (b"utf-7", b"utf-16", b"utf-32", b"idna", b"punycode", b"unicode_escape", b"raw_unicode_escape",
                    b"base64", b"zlib", b"bz2", b"rot13", b"iso-2022-jp", b"iso-2022-kr", b"hz", b"gb18030",
                    b"cp65001", b"../../etc/passwd", b"x" * 5_000):  # fmt: skip
        head = b"Content-Type: text/plain; charset=" + charset + b"\r\n\r\n"
        yield f"a body that claims to be {charset[:20].decode()}", _ROBOT + head + fill(b"\x1b$B+AGE-\\u0041\xe9", size)
        subject = b"Subject: " + fill(b"=?" + charset + b"?q?=1b=24B=41?= ", 60_000)
        yield f"encoded words that claim to be {charset[:20].decode()}", subject + b"\r\n\r\nbody"
    yield "noise", random.Random(5).randbytes(size)
    yield "NULs in a body", _ROBOT + b"\r\n" + bytes(size)
    yield "one line", _ROBOT + b"\r\n" + fill(b"x", size)
    yield "empty lines", _ROBOT + b"\r\n" + fill(b"\r\n", size)
    yield "bare CR in a body", _ROBOT + b"\r\n" + fill(b"<a@b.example>:\r550 5.1.1 gone\r", size)
    yield "nothing", b""
    yield "one LF", b"\n"


def _reports(size: int) -> Iterator[tuple[str, bytes]]:
    recipient = b"Final-Recipient: rfc822; a@b.example\r\nAction: failed\r\nStatus: 5.1.1\r\n"
    yield "a report about 100,000 recipients", _REPORT + _STATUS + fill(recipient + b"\r\n", size)
    yield "a report of empty blocks", _REPORT + _STATUS + fill(b"\r\n\r\n", size)
    yield "a report of one action", _REPORT + _STATUS + fill(b"Action: failed\r\n\r\n", size)
    yield "a report of one block", _REPORT + _STATUS + fill(b"Action: failed\r\n", size)
    yield "a report of many reports", _REPORT + fill(_STATUS + recipient, size)
    for name, piece in (
        ("x", b"x"), ("digits", b"5.1.1 "), ("blanks", b" "), ("codes", b"550 "), ("brackets", b"<a@b.example> (("),
        ("dashes", b"550-5.1.1 "), ("dots", b"5."), ("quotes", b"'\""), ("types", b"smtp; "), ("said", b"said: "),
        ("trap words", b"spam trap blocklist "), ("capitals", "İ".encode()), ("addresses", b"a@b.example "),
    ):  # fmt: skip
        text = b"Diagnostic-Code: smtp; " + fill(piece, size) + b"\r\n"
        yield f"a diagnosis of {name}", _REPORT + _STATUS + recipient + text
        folded = b"Diagnostic-Code: smtp" + b"".join(b"\r\n " + fill(piece, 70) for _ in range(size // 80))
        yield f"a folded diagnosis of {name}", _REPORT + _STATUS + recipient + folded
        yield f"a status of {name}", _REPORT + _STATUS + b"Action: failed\r\nStatus: " + fill(piece, 4_000) + b"\r\n"
        about = b"Final-Recipient: rfc822; " + fill(piece, 4_000) + b"\r\nAction: failed\r\n"
        yield f"a recipient of {name}", _REPORT + _STATUS + about
        yield f"an action of {name}", _REPORT + _STATUS + b"Action: " + fill(piece, 4_000) + b"\r\n"
    feedback = (
        b"Content-Type: multipart/report; report-type=feedback-report; boundary=b\r\n\r\n"
        b"--b\r\nContent-Type: message/feedback-report\r\n\r\nFeedback-Type: abuse\r\n"
    )
    yield "a feedback report of many recipients", feedback + fill(b"Original-Rcpt-To: <a@b.example>\r\n", size)
    yield "a feedback report of many types", feedback + fill(b"Feedback-Type: fraud\r\n", size)
    yield "a feedback report of huge numbers", feedback + b"Incidents: " + fill(b"9", 4_000) + b"\r\n"
    yield "a feedback report of huge dates", feedback + b"Arrival-Date: " + fill(b"Mon, 99 ", 4_000) + b"\r\n"
    returned = feedback + b"\r\n--b\r\nContent-Type: message/rfc822\r\n\r\n"
    yield "a returned message of many Message-IDs", returned + fill(b"Message-ID: <a.b@c.example>\r\n", size)
    yield (
        "a returned message of links",
        returned + fill(b"List-Unsubscribe: <https://x/u/" + b"a" * 60 + b">\r\n", size),
    )
    yield "a returned message of one link field", returned + b"List-Unsubscribe: " + fill(b"<https://x/u/a>,", size)
    yield (
        "a returned message of signed return paths",
        returned + fill(b"Return-Path: <b+" + b"a" * 60 + b"@x>\r\n", size),
    )
    yield "a returned message of encoded words", returned + b"Subject: " + fill(b"=?utf-8?q?=41?= ", size)
    yield (
        "a report by X-Failed-Recipients",
        _ROBOT + b"X-Failed-Recipients: " + fill(b"a@b.example, ", size) + b"\r\n\r\nx",
    )


def _texts(size: int) -> Iterator[tuple[str, bytes]]:
    phrases = {
        "qmail": b"<a@b.example>:\r\nSorry, no mailbox here by that name. (#5.1.1)\r\n\r\n",
        "addresses": b"a@b.example\r\n",
        "angles": b"<a@b.example>\r\n",
        "open angles": b"<",
        "at signs": b"@",
        "letters and at signs": b"a@",
        "dots and at signs": b"a.b@c.d.",
        "could not be delivered": b"could not be delivered to: ",
        "permanent": b"permanent fatal errors\r\n----- ",
        "transcript": b"   ----- Transcript of session follows -----\r\n550 5.1.1 <a@b.example>... User unknown\r\n",
        "Exchange": b"Your message did not reach some or all of the intended recipients.\r\n",
        "codes": b"550 5.1.1 ",
        "almost codes": b"550-5.1.1-",
        "blanks": b" ",
        "line ends": b"\r\n",
        "dashes": b"-----",
        "quotes": b"> ",
        "tags": b"<p><br/>",
        "entities": b"&amp;&#64;",
        "open tags": b"<a href=",
        "comments": b"<!-- ",
        "accents": "é".encode(),
        "East Asian": "邮件无法投递".encode(),
        "right to left": "\u202e\u0627".encode(),
    }
    for name, phrase in phrases.items():
        body = fill(phrase, size)
        yield f"a notice of {name}", _ROBOT + b"\r\n" + body
        yield f"a notice in HTML of {name}", _ROBOT + b"Content-Type: text/html\r\n\r\n" + body
        yield f"a report whose text is {name}", _REPORT + b"--b\r\n\r\n" + body
        part = b"--b\r\nContent-Type: text/plain\r\n\r\n" + fill(phrase, 40_000) + b"\r\n"
        yield f"a report of many texts of {name}", _REPORT + part * 30
        yield f"a subject of {name}", b"Subject: " + body.replace(b"\r\n", b" ") + b"\r\n\r\nbody"
        yield (
            f"an automatic reply of {name}",
            b"Auto-Submitted: auto-replied\r\nSubject: Re: "
            + fill(phrase.replace(b"\r\n", b" "), 4_000)
            + b"\r\n\r\n"
            + body,
        )
