"""Gates: pure verdicts with intervals, one file of gates per asset, stored verdicts, and the guard."""
