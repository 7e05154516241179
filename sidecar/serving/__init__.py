"""What happens to one search, and to one event, from arrival to answer?

The main path: history → interest → scores → order, its deadline, its skips, its telemetry.
"""
