"""The mirror: the newest of each object, in whatever order answers and watches tell of it."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from k8s import labels
from k8s.mirror import Mirror
from k8s.objects import Metadata, Thing, _Spec

VERSIONS = st.lists(st.integers(1, 30), unique=True, min_size=1, max_size=12)


def thing(version: int, *, name: str = "one", uid: str = "u", replicas: int | None = None, of: str = "c") -> Thing:
    metadata = Metadata(
        name=name, uid=uid, resource_version=str(version), generation=version, labels={labels.CAMPAIGN: of}
    )
    return Thing(metadata=metadata, spec=_Spec(replicas=replicas))


def version(mirror: Mirror) -> int:
    found = mirror.get("Deployment", "one")
    return 0 if found is None else int(found.metadata.resource_version)


@given(VERSIONS, st.randoms())
def test_answers_and_a_watch_in_any_order_end_with_the_newest(versions: Sequence[int], chance: object) -> None:
    """A watch tells in order; an answer to a write of ours may come before or after the watch has told of it."""
    mirror = Mirror()
    written = [version for version in versions if version % 2]
    chance.shuffle(written)  # type: ignore[attr-defined]  # a random.Random
    for told in sorted(versions):
        mirror.told("Deployment", thing(told))
        if written:
            mirror.wrote("Deployment", thing(written.pop()))
    for late in written:
        mirror.wrote("Deployment", thing(late))

    assert version(mirror) == max(versions)


def test_the_echo_of_our_own_write_is_no_change() -> None:
    mirror = Mirror()
    mirror.wrote("Deployment", thing(5))

    assert mirror.told("Deployment", thing(5)) is None


def test_an_answer_that_the_watch_has_overtaken_brings_nothing_back() -> None:
    mirror = Mirror()
    mirror.told("Deployment", thing(5))
    mirror.told("Deployment", thing(7), is_gone=True)

    mirror.wrote("Deployment", thing(6))

    assert mirror.get("Deployment", "one") is None


def test_the_end_of_an_earlier_object_does_not_end_the_one_that_has_its_name_now() -> None:
    mirror = Mirror()
    mirror.wrote("Deployment", thing(9, uid="new"))

    mirror.told("Deployment", thing(8, uid="old"), is_gone=True)

    assert version(mirror) == 9


def test_a_list_forgets_what_is_gone_and_keeps_what_was_written_while_it_came() -> None:
    mirror = Mirror()
    mirror.told("Deployment", thing(3, name="gone"))
    mirror.lists("Deployment")
    mirror.wrote("Deployment", thing(12))

    mirror.listed("Deployment", [thing(4), thing(5, name="other")], "10")

    assert sorted(mirror.all("Deployment")) == ["one", "other"]
    assert version(mirror) == 12


def test_a_list_of_a_restored_cluster_counts_although_its_versions_are_smaller() -> None:
    mirror = Mirror()
    mirror.told("Deployment", thing(900, replicas=3))
    mirror.lists("Deployment")

    changes = mirror.listed("Deployment", [thing(4, replicas=1)], "10")

    assert version(mirror) == 4
    assert len(changes) == 1


def test_pods_are_found_by_their_campaign_as_long_as_they_are_there() -> None:
    mirror = Mirror()
    mirror.told("Pod", thing(1, name="a", of="x"))
    mirror.told("Pod", thing(2, name="b", of="x"))
    mirror.told("Pod", thing(3, name="a", of="y"))
    mirror.told("Pod", thing(4, name="b", of="x"), is_gone=True)

    assert [pod.metadata.name for pod in mirror.pods("y")] == ["a"]
    assert not list(mirror.pods("x"))
