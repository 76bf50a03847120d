"""What transactions have to keep of the rules, on PostgreSQL as well."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.databases import PostgresqlServer
from tests.firm.test_approval import (
    test_refused_it_ends_and_all_is_given_back,
    test_the_first_word_counts,
)
from tests.firm.test_firm_offers import (
    test_a_user_has_no_more_node_hours_in_a_week_than_allowed,
    test_two_users_after_the_last_of_a_share_and_one_gets_it,
    test_two_workers_do_not_give_one_user_more_node_hours_than_a_week_has,
)

__all__ = [
    "test_a_user_has_no_more_node_hours_in_a_week_than_allowed",
    "test_refused_it_ends_and_all_is_given_back",
    "test_the_first_word_counts",
    "test_two_users_after_the_last_of_a_share_and_one_gets_it",
    "test_two_workers_do_not_give_one_user_more_node_hours_than_a_week_has",
]

pytestmark = pytest.mark.postgresql


@pytest.fixture
def ready_database_url(postgresql_server: PostgresqlServer, postgresql_template: str) -> Iterator[str]:
    """A PostgreSQL database with the newest schema."""
    name = postgresql_server.create(postgresql_template)
    yield postgresql_server.url(name)
    postgresql_server.drop(name)
