from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from ebhpc.store import Store, current_revision, newest_revision, upgrade
from ebhpc.store.tables import metadata


def test_migrations_lead_to_the_tables_of_the_code(database_url):
    store = Store(database_url)
    upgrade(store)
    assert current_revision(store) == newest_revision()
    with store.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    store.close()


def test_an_empty_database_has_no_revision(database_url):
    store = Store(database_url)
    assert current_revision(store) is None
    store.close()


def test_processes_that_upgrade_at_once_do_not_disturb_each_other(database_url):
    def run(_: int) -> None:
        store = Store(database_url)
        try:
            upgrade(store)
        finally:
            store.close()

    with ThreadPoolExecutor(4) as processes:
        list(processes.map(run, range(4)))
    store = Store(database_url)
    assert current_revision(store) == newest_revision()
    store.close()
