"""What Envoy is told and what it tells: our nouns to its files, its log lines and admin answers to our nouns.

Pure: it opens no file and no socket. `gateway/` writes, starts, asks and reads; only this package knows Envoy's words.
Written for Envoy 1.40.
"""
