"""What clients of a service speak: bytes into values and back. No I/O; called by `serve/`."""
