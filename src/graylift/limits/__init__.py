"""The arithmetic of limits: budgets that are charged when a request begins and settled when it ends.

Pure: the time is an argument. It knows neither Envoy nor where the budgets are kept; `gateway/` keeps them.
"""
