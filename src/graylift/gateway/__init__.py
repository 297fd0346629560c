"""The agent beside one Envoy: applies routing tables, reads back what runs, turns the access log into reports."""
