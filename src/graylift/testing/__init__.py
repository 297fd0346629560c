"""Fakes of the ports, small complete domain values, and the suites that hold an implementation to its port.

Shipped for people who write their own adapter; nothing of the product imports it.
"""
