"""Header text that is written in encoded words (RFC 2047), decoded with every dimension bounded.

The standard library's decoder takes seconds for a header of some hundred kilobytes, and raises for words that are cut;
this one reads so many words and no more, and leaves what it cannot read as it stands.
"""

import binascii
import quopri
import re

MAX_CHARS = 2_000
MAX_WORDS = 40

_WORD = re.compile(r"=\?([\w.:-]{1,40})(?:\*[\w-]{1,20})?\?([bBqQ])\?([^?\s]{0,400})\?=(\s{1,20}(?==\?))?")
_CHARSETS = {
    "utf-8", "utf8", "us-ascii", "ascii",
    *(f"iso-8859-{number}" for number in (*range(1, 12), *range(13, 17))),
    *(f"windows-{number}" for number in range(1250, 1259)),
    "koi8-r", "koi8-u", "iso-2022-jp", "shift_jis", "euc-jp", "euc-kr", "iso-2022-kr",
    "gb2312", "gbk", "gb18030", "big5", "tis-620",
}  # fmt: skip


def decoded(text: str) -> str:
    """The text with its encoded words read, at most ``MAX_WORDS`` of them."""
    return _WORD.sub(_read, text[:MAX_CHARS], count=MAX_WORDS)


def _read(word: re.Match[str]) -> str:
    charset = word[1].lower()
    if charset not in _CHARSETS:
        return word[0]
    try:
        if word[2] in "bB":
            raw = binascii.a2b_base64(word[3] + "=" * (-len(word[3]) % 4))
        else:
            raw = quopri.decodestring(word[3].replace("_", " "), header=True)
    except ValueError:
        return word[0]
    return raw.decode("gb18030" if charset in {"gb2312", "gbk"} else charset, "replace")
