"""The words of robots that answer for people (``auto_reply_words.toml``), and how a subject is compared with them."""

import re
import tomllib
import unicodedata
from functools import cache
from importlib.resources import files
from typing import Literal

import msgspec

Phrases = Literal["absence", "holiday", "receipt", "challenge", "opening"]

_LOOKED_AT = 2_000
_SPACES = re.compile(r"\s+")
_BRACKETS = re.compile(r"\A[\s\[(<*#\"'\u00ab\u201e\u201c\u00bb:!-]{1,8}")


class _Words(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    absence: list[str]
    holiday: list[str]
    receipt: list[str]
    challenge: list[str]
    opening: list[str]


_LETTERS = str.maketrans({"\u2019": "'", "\u00df": "ss", "\u0131": "i"})  # a Turkish i has no dot to take away


def plain(text: str) -> str:
    """Text without case and accents, with single spaces, for comparing."""
    apart = unicodedata.normalize("NFKD", text[:_LOOKED_AT].translate(_LETTERS)).casefold()
    kept = "".join(one for one in apart if not unicodedata.combining(one))
    return _SPACES.sub(" ", unicodedata.normalize("NFC", kept))


def begins_with(phrases: Phrases, title: str) -> bool:
    """Does a title, in the form of :func:`plain`, begin with one of the phrases, whatever brackets stand before it?"""
    return _pattern(phrases).match(_BRACKETS.sub("", title, count=1)) is not None


def holds(phrases: Phrases, text: str) -> bool:
    """Does a text, in the form of :func:`plain`, hold one of the phrases?"""
    return _pattern(phrases).search(text) is not None


def all_phrases(phrases: Phrases) -> list[str]:
    """The phrases as they stand in the file."""
    return list(getattr(_words(), phrases))


@cache
def _pattern(phrases: Phrases) -> re.Pattern[str]:
    longest_first = sorted(map(plain, all_phrases(phrases)), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)))


@cache
def _words() -> _Words:
    text = files("smtp").joinpath("auto_reply_words.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), _Words)
