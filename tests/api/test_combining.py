"""Work of several threads, done by one of them."""

from __future__ import annotations

import threading
import time

import pytest

from ebhpc.api.combining import Combining

PATIENCE = 60


class Bakery:
    """Threads that bring numbers; the one that leads doubles all that it takes, once it is let."""

    def __init__(self) -> None:
        self.together: Combining[list[int]] = Combining()
        self.portions: list[int] = []
        self.inside = 0
        self.most_inside = 0
        self.may = threading.Event()
        self.leading = threading.Event()

    def bring(self, item: list[int]) -> None:
        if self.together.leads(item):
            try:
                self.inside += 1
                self.most_inside = max(self.most_inside, self.inside)
                self.leading.set()
                found = self.together.take()
                assert self.may.wait(PATIENCE)
                for one in found:
                    one[0] *= 2
                self.portions.append(len(found))
            finally:
                self.inside -= 1
                self.together.leave()


def test_who_comes_while_another_leads_is_served_by_the_next_all_at_once():
    bakery = Bakery()
    items = [[number] for number in range(9)]
    threads = [threading.Thread(target=bakery.bring, args=(item,)) for item in items]
    threads[0].start()
    assert bakery.leading.wait(PATIENCE)
    for thread in threads[1:]:
        thread.start()
    while len(bakery.together) < len(items) - 1:
        time.sleep(0.001)
    bakery.may.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert items == [[2 * number] for number in range(9)]
    assert bakery.portions == [1, 8]


def test_each_is_served_once_however_many_come():
    bakery = Bakery()
    bakery.may.set()
    items = [[1] for _ in range(400)]

    def many(some: list[list[int]]) -> None:
        for item in some:
            bakery.bring(item)
            assert item == [2]

    threads = [threading.Thread(target=many, args=(items[part::8],)) for part in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert items == [[2]] * 400
    assert sum(bakery.portions) == 400
    assert bakery.most_inside == 1


def test_a_leader_that_fails_hands_over():
    together: Combining[int] = Combining()
    assert together.leads(1)
    told: list[tuple[bool, list[int]]] = []

    def follow() -> None:
        leads = together.leads(2)
        told.append((leads, together.take()))
        together.leave()

    thread = threading.Thread(target=follow)
    thread.start()
    while len(together) < 2:
        time.sleep(0.001)
    together.leave()  # before it took anything
    thread.join(PATIENCE)
    assert told == [(True, [2])]
    assert together.leads(3)
    assert together.take() == [3]
    together.leave()


@pytest.mark.parametrize("taken", [False, True])
def test_what_a_leader_took_and_could_not_do_keeps_nobody_waiting(taken):
    together: Combining[int] = Combining()
    assert together.leads(1)
    led: list[bool] = []

    def follow() -> None:
        if leads := together.leads(2):
            together.take()
            together.leave()
        led.append(leads)

    thread = threading.Thread(target=follow)
    thread.start()
    while len(together) < 2:
        time.sleep(0.001)
    if taken:
        assert together.take() == [1, 2]
    together.leave()
    thread.join(PATIENCE)
    assert led == [not taken]
