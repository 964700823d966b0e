"""How many cases a full suite has (spec: sizes are what the gates' bounds need)."""

SUITE_SIZES = {"A": 400, "B": 500, "C": 125, "D": 550, "E": 200, "V": 600}
B_HALF = 250
MIN_TOOLS = 5
