"""Agent session files to events: one file per agent format, and the graph that tells what really happened."""
