"""Shipping: how long models are kept; which of them is in production is read in `gates/production.py`."""
