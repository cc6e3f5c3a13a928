"""Writes the tables of docs/metrics.md anew: ``python -m tests.monitoring``."""

from tests.monitoring.documenting import PAGE, tables, with_tables
from tests.monitoring.exposing import expose

PAGE.write_text(with_tables(PAGE.read_text(), tables(expose())))
