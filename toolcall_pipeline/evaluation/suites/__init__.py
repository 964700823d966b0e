"""The suites: what is asked, frozen and versioned. One file per suite; `freeze.py` puts them together."""
