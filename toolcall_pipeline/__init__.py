"""From coding-agent sessions to a local tool-calling model that may honestly ship.

The rooms lie in the order data flows: sessions, redaction, store, dataset, training, export, evaluation, gates,
shipping. None of them imports Dagster; `defs/` and `definitions.py` are the floor above. See docs/architecture.md.
"""

__version__ = "0.1.0"
