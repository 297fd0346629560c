"""Open-loop load: a schedule fixed ahead, sent whatever the server does, and a report that says whether to trust it."""
