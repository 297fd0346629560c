"""Requests summed into windows per interval, and intervals into reports. Pure."""
