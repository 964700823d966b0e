"""Shipping: what is in production, how it got there, and where every part of it came from."""
