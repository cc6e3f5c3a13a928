from __future__ import annotations

from collections.abc import Mapping

from fracgpu.gpunodes import Grant
from fracgpu.names import RESOURCE_MEMORY, RESOURCE_REPLICA, PodUid
from fracgpu.plans import Share
from fracgpu.pods import Pod
from plugin.granting.book import GrantBook
from plugin.granting.listing import ListedPod
from tests.plugin.builders import A, B, listed, make_gpu, make_pod, seats, units

OLD = make_pod("db-0", {"main": [Share(A, 8)]}, uid="old")
NEW = make_pod("db-0", {"main": [Share(B, 4)]}, uid="new")


def make_book() -> GrantBook:
    return GrantBook({A: make_gpu(A), B: make_gpu(B)})


def alive(*pods: Pod) -> Mapping[PodUid, Pod]:
    return {pod.uid: pod for pod in pods}


def look(book: GrantBook, *entries: ListedPod, pods: Mapping[PodUid, Pod], running: tuple[str, ...] = ()) -> bool:
    return book.reconcile(entries, pods, has_processes=lambda uid: uid in running)


def held(book: GrantBook) -> dict[str, Mapping[str, tuple[Share, ...]]]:
    return {grant.pod_uid: grant.containers for grant in book.grants()}


def test_a_grant_lives_from_allocate_to_the_end_of_the_last_process() -> None:
    book = make_book()
    book.record(OLD, "main", RESOURCE_MEMORY, frozenset(units(A, 8)))
    want = {"old": {"main": (Share(A, 8),)}}
    entry = listed("db-0", {"main": units(A, 8)})
    steps = {
        "the kubelet has not noted it yet": look(book, listed("db-0", {"main": []}), pods=alive(OLD)),
        "it runs": look(book, entry, pods=alive(OLD), running=("old",)),
        "deleted, still ending": look(book, entry, pods={}, running=("old",)),
        "dropped by the kubelet, its process lives": look(book, pods={}, running=("old",)),
    }
    assert not any(steps.values())
    assert held(book) == want
    assert book.has_ending
    assert book.ended_holders(A) == ["team-a/db-0"]
    assert look(book, pods={}), "the grants changed"
    assert held(book) == {}
    assert not book.has_ending


def test_a_pod_alive_keeps_its_grant_whatever_the_kubelet_lists() -> None:
    book = make_book()
    book.record(OLD, "main", RESOURCE_MEMORY, frozenset(units(A, 8)))
    assert not look(book, pods=alive(OLD)), "a kubelet that has just started lists nothing"
    assert "old" in held(book)


def test_no_answer_of_the_kubelet_drops_nothing() -> None:
    book = make_book()
    book.record(OLD, "main", RESOURCE_MEMORY, frozenset(units(A, 8)))
    assert not book.reconcile(None, {}, has_processes=lambda _: False)
    assert "old" in held(book)


def test_two_containers_of_a_pod_refused_at_the_second() -> None:
    pod = make_pod("pair", {"left": [Share(A, 4)], "right": [Share(B, 4)]})
    book = make_book()
    book.record(pod, "left", RESOURCE_MEMORY, frozenset(units(A, 4)))
    look(book, listed("pair", {"left": units(A, 4), "right": []}), pods=alive(pod))
    assert held(book) == {"uid-pair": {"left": (Share(A, 4),)}}
    look(book, pods={})  # the kubelet rejected it: Failed, never started
    assert held(book) == {}


def test_the_next_pod_of_that_name_does_not_inherit_nor_hide_the_last_ones_grant() -> None:
    book = make_book()
    book.record(OLD, "main", RESOURCE_MEMORY, frozenset(units(A, 8)))
    look(book, listed("db-0", {"main": units(A, 8)}), pods=alive(NEW), running=("old",))
    assert {*held(book)} == {"old"}, "the kubelet still lists the old one under the name"
    book.record(NEW, "main", RESOURCE_MEMORY, frozenset(units(B, 4)))
    look(book, listed("db-0", {"main": units(B, 4)}), pods=alive(NEW), running=("old", "new"))
    assert held(book) == {"old": {"main": (Share(A, 8),)}, "new": {"main": (Share(B, 4),)}}
    look(book, listed("db-0", {"main": units(B, 4)}), pods=alive(NEW), running=("new",))
    assert {*held(book)} == {"new"}


def test_the_same_ids_under_the_same_name_belong_to_the_newer_pod() -> None:
    book = make_book()
    book.record(OLD, "main", RESOURCE_MEMORY, frozenset(units(A, 8)))
    book.record(NEW, "main", RESOURCE_MEMORY, frozenset(units(A, 8)))
    look(book, listed("db-0", {"main": units(A, 8)}), pods=alive(NEW), running=("new",))
    assert {*held(book)} == {"new"}


def test_after_a_restart_the_devices_are_known_that_the_kubelet_does_not_list_any_more() -> None:
    before, after = make_book(), make_book()
    before.record(OLD, "main", RESOURCE_MEMORY, frozenset(units(A, 8)))
    after.restore(before.grants(), ids=before.device_ids())
    look(after, pods=alive(NEW), running=("old",))
    assert after.held_ids(besides=NEW.uid) == frozenset(units(A, 8))
    assert after.held_ids(besides=OLD.uid) == frozenset()


def test_after_a_restart_the_book_is_rebuilt() -> None:
    grants = (
        Grant(PodUid("old"), "team-a", "db-0", {"main": (Share(A, 8),)}),
        Grant(PodUid("gone"), "team-a", "gone", {"main": (Share(A, 2),)}),
        Grant(PodUid("ending"), "team-a", "ending", {"main": (Share(A, 3),)}),
    )
    book = make_book()
    book.restore(grants)
    look(
        book,
        listed("db-0", {"main": units(B, 4)}),
        listed("ending", {"main": units(A, 3)}),
        listed("other", {"main": seats(B, 1)}),
        pods=alive(NEW, make_pod("other", {"main": []})),
        running=("old",),
    )
    assert held(book) == {
        "old": {"main": (Share(A, 8),)},  # force-deleted, process alive
        "new": {"main": (Share(B, 4),)},  # learned from PodResources and the watch
        "ending": {"main": (Share(A, 3),)},  # deleted, still listed
        "uid-other": {"main": (Share(B, 20, 1),)},
    }


def test_of_two_sources_the_later_wins_for_a_pod_in_both() -> None:
    book = make_book()
    book.restore([Grant(PodUid(uid), "team-a", uid, {"main": (Share(A, 1),)}) for uid in ("published", "both")])
    book.restore([Grant(PodUid(uid), "team-a", uid, {"main": (Share(A, 8),)}) for uid in ("both", "journaled")])
    assert {uid: shares["main"][0].units for uid, shares in held(book).items()} == {
        "published": 1,
        "both": 8,
        "journaled": 8,
    }


def test_a_record_can_be_taken_back() -> None:
    book = make_book()
    book.record(OLD, "main", RESOURCE_MEMORY, frozenset(units(A, 8)))
    before = book.grants()
    for container in ("main", "other"):
        book.record(OLD, container, RESOURCE_MEMORY, frozenset(units(B, 4)))()
        assert book.grants() == before
    book.record(NEW, "main", RESOURCE_MEMORY, frozenset(units(B, 4)))()
    assert book.grants() == before


def test_devices_of_a_pod_that_nobody_knows_count_but_are_not_published() -> None:
    book = make_book()
    look(book, listed("ghost", {"main": units(A, 5)}), pods={})
    assert book.grants() == ()
    assert book.used(A) == Share(A, 5)
    assert book.ended_holders(A) == ["team-a/ghost"]
    look(book, pods={})
    assert book.used(A) == Share(A, 0)


def test_use_adds_up_over_units_seats_and_pods() -> None:
    book = make_book()
    book.record(OLD, "main", RESOURCE_MEMORY, frozenset(units(A, 8)))
    seated = make_pod("seated", {})
    book.record(seated, "one", RESOURCE_REPLICA, frozenset(seats(A, 1)))
    book.record(seated, "two", RESOURCE_REPLICA, frozenset(seats(A, 2, start=1)))
    assert book.used(A) == Share(A, 8 + 20 + 40, 3)
    assert book.used(A, besides=(seated.uid, "two")) == Share(A, 28, 1)
    assert book.used(B) == Share(B, 0)
    assert book.is_granted(seated.uid, "two")
    assert not book.is_granted(seated.uid, "three")
