"""What the watches have told: the newest of each object, so that a look at a sender costs no call.

A stale look is harmless, because every write carries the version that was read and is refused when that is not the
newest.  Versions of one kind of objects in one namespace can be compared as numbers (KEP-5504, and true before).
"""

from collections.abc import Iterable, Mapping

from k8s import labels
from k8s.api import Kind
from k8s.objects import Thing

Change = tuple[Thing | None, Thing | None]

_GROUPED: frozenset[Kind] = frozenset({"Pod", "Campaign"})


class Mirror:
    """Objects by kind and name; pods also by the campaign's name in their label, campaigns also by their id."""

    def __init__(self) -> None:
        self._things: dict[Kind, dict[str, Thing]] = {}
        self._groups: dict[tuple[Kind, str], dict[str, Thing]] = {}
        self._heard: dict[Kind, int] = {}  # up to this version everything was told
        self._written: dict[Kind, dict[str, Thing]] = {}  # by us, since the last list began

    def get(self, kind: Kind, name: str) -> Thing | None:
        """One object, None when there is none."""
        return self._things.get(kind, {}).get(name)

    def all(self, kind: Kind) -> Mapping[str, Thing]:
        """All objects of a kind by name."""
        return self._things.get(kind, {})

    def pods(self, campaign: str) -> Iterable[Thing]:
        """The pods of the campaign with this name in their label."""
        return self._groups.get(("Pod", campaign), {}).values()

    def campaigns(self, campaign: str) -> Iterable[Thing]:
        """The resources that are about a campaign."""
        return self._groups.get(("Campaign", campaign), {}).values()

    def told(self, kind: Kind, thing: Thing, *, is_gone: bool = False) -> Change | None:
        """A watch told this of an object; what changed by that for us, None when nothing did."""
        self._heard[kind] = max(self._heard.get(kind, 0), _number(thing))
        known = self.get(kind, thing.metadata.name)
        if known is not None and (_is_older(thing, known) or (is_gone and known.metadata.uid != thing.metadata.uid)):
            return None  # an earlier version, or the end of an earlier object of this name
        self._keep(kind, thing.metadata.name, None if is_gone else thing)
        return _change(known, None if is_gone else thing)

    def wrote(self, kind: Kind, thing: Thing) -> None:
        """The answer to a write of ours; when the watch is past it already, it knows better."""
        known = self.get(kind, thing.metadata.name)
        if _number(thing) > self._heard.get(kind, 0) and not (known is not None and _is_older(thing, known)):
            self._keep(kind, thing.metadata.name, thing)
            self._written.setdefault(kind, {})[thing.metadata.name] = thing

    def looked(self, kind: Kind, name: str, thing: Thing | None) -> None:
        """The answer to a look of ours, where no watch tells."""
        self._keep(kind, name, thing)

    def lists(self, kind: Kind) -> None:
        """A list begins; what we write from now on may be newer than what it says."""
        self._written[kind] = {}

    def listed(self, kind: Kind, things: Iterable[Thing], version: str) -> list[Change]:
        """Begin anew with a list; what has changed for us by that."""
        heard = self._heard[kind] = int(version) if version.isdigit() else 0
        now = {thing.metadata.name: thing for thing in things}
        now |= {name: thing for name, thing in self._written.get(kind, {}).items() if _number(thing) > heard}
        before = dict(self.all(kind))
        for name in before.keys() | now.keys():
            self._keep(kind, name, now.get(name))
        changes = (_change(before.get(name), now.get(name)) for name in before.keys() | now.keys())
        return [change for change in changes if change is not None]

    def heard(self, kind: Kind, version: str) -> None:
        """Everything up to a version was told."""
        self._heard[kind] = max(self._heard.get(kind, 0), int(version) if version.isdigit() else 0)

    def _keep(self, kind: Kind, name: str, thing: Thing | None) -> None:
        things = self._things.setdefault(kind, {})
        old = things.pop(name, None)
        if thing is not None:
            things[name] = thing
        if old is not None and (group := self._groups.get(_key(kind, old))) is not None:
            group.pop(name, None)
            if not group:
                del self._groups[_key(kind, old)]
        if thing is not None and kind in _GROUPED:
            self._groups.setdefault(_key(kind, thing), {})[name] = thing


def _key(kind: Kind, thing: Thing) -> tuple[Kind, str]:
    return kind, thing.spec.campaign if kind == "Campaign" else thing.metadata.labels.get(labels.CAMPAIGN, "")


def _number(thing: Thing) -> int:
    version = thing.metadata.resource_version
    return int(version) if version.isdigit() else 0


def _change(old: Thing | None, new: Thing | None) -> Change | None:
    same = old is new or (old is not None and new is not None and old.view == new.view)
    return None if same else (old, new)


def _is_older(thing: Thing, known: Thing) -> bool:
    """Is this an earlier version of the same object?"""
    return thing.metadata.uid == known.metadata.uid and _number(thing) < _number(known)
