"""The commands, what they show, and the wiring: the only place where adapters meet ports."""
