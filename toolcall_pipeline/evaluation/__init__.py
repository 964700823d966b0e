"""Judging a model: completions read, suites run through the path that serves, outcomes counted with intervals."""
