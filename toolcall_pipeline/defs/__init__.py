"""The Dagster floor: partitions, resources, assets, checks, jobs and schedules over the stages below.

Thin on purpose: what a stage does is in its own room, what a gate asks is in `gates/`. Nothing below imports this.
"""
