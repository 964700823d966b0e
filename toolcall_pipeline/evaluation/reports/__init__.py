"""Reports: `results.json` and what is rendered from it, nothing judged here."""
