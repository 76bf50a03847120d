"""Who the broker's users are at a batch system."""

from __future__ import annotations

import os

import pytest

from ebhpc import batch
from ebhpc.batch import UnixUser
from ebhpc.plugins import SessionFailed


class Scientist(UnixUser, frozen=True, kw_only=True):
    group: str | None = None


KNOWN = {"ada@example.org": Scientist(user="ada", group="engines")}


@pytest.mark.parametrize("same_name", [False, True])
def test_who_is_named_is_who_the_site_says(same_name):
    found = batch.user_of("ada@example.org", KNOWN, Scientist, same_name=same_name)
    assert found == KNOWN["ada@example.org"]


def test_others_have_their_own_name_where_the_site_says_so_but_nobody_is_root_or_an_option_by_it():
    assert batch.user_of("bob", KNOWN, Scientist, same_name=True) == Scientist(user="bob")
    for name in ("root", "-u", "bob smith", "bob\n", "", "b" * 65, "bob;id", "0"):
        assert batch.user_of(name, KNOWN, Scientist, same_name=True) is None
    assert batch.user_of("bob", KNOWN, Scientist, same_name=False) is None


def test_files_are_the_users_by_number_by_name_or_the_brokers_own():
    assert batch.account_of(UnixUser(user="nobody-here", uid=4711), own=False).uid == 4711
    assert batch.account_of(UnixUser(user="daemon"), own=False).uid == 1
    assert batch.account_of(UnixUser(user="daemon"), own=True).uid == os.geteuid()


def test_a_user_that_this_host_does_not_know_is_a_failure_with_the_name():
    with pytest.raises(SessionFailed) as failed:
        batch.account_of(UnixUser(user="nobody-here"), own=False)
    assert str(failed.value.messages[0]) == "The broker's host does not know the user nobody-here."
