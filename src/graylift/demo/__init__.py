"""Real models from packages, real inputs and ready release files: what `graylift demo` shows Graylift with."""
